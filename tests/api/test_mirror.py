"""The mirror: what may replace what, and what is believed."""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import mirror
from api.mirror import Ending, Entry, SyncMirror
from tests.redis_fixture import Valkey

TASK = UUID("01890a5d-ac96-774b-bcce-b302099a8057")

entries = st.builds(
    Entry,
    st.just(TASK),
    st.integers(0, 4),
    st.sampled_from(sorted(mirror.RANKS)),
    st.one_of(st.none(), st.binary(min_size=1, max_size=8)),
)


def run(client, commands):
    return [client.execute_command(*command) for command in commands]


def seen(client) -> tuple[int, int, bytes, bytes | None] | None:
    attempt, rank, state, result = client.hmget(mirror.key(TASK), "attempt", "rank", "state", "result")
    return None if attempt is None else (int(attempt), int(rank), state, result)


@pytest.fixture(scope="module")
def client(valkey_server: Valkey):
    with valkey_server.client() as client:
        yield client


@given(writes=st.lists(entries, max_size=12), together=st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mirror_never_goes_back_and_an_end_never_changes(client, writes, together):
    client.delete(mirror.key(TASK))
    before = None
    for commands in [mirror.write(writes)] if together else [mirror.write([entry]) for entry in writes]:
        run(client, commands)
        after = seen(client)
        if before is not None:
            assert after is not None
            assert after[0] >= before[0]
            assert after[1] >= before[1]
            assert after == before or before[1] < 2
        before = after


@st.composite
def histories(draw):
    """What happens to one task: attempts begin, and the last one ends. And the order in which it is heard."""
    attempts = draw(st.integers(1, 4))
    history = [Entry(TASK, 0, "QUEUED")]
    history += [Entry(TASK, attempt, "RUNNING") for attempt in range(1, attempts + 1) if draw(st.booleans())]
    history.append(Entry(TASK, attempts, draw(st.sampled_from(["COMPLETED", "FAILED"])), b"result"))
    heard = draw(st.permutations(history + draw(st.lists(st.sampled_from(history)))))
    return history[-1], heard


@given(told=histories())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_whatever_order_it_is_heard_the_end_is_what_stays(client, told):
    end, heard = told
    client.delete(mirror.key(TASK))
    for entry in heard:
        run(client, mirror.write([entry]))
    assert seen(client) == (end.attempt, 2, end.state.encode(), b"result")
    assert mirror.ending(run(client, [mirror.read(TASK)])[0]) == Ending(end.state, b"result")
    assert mirror.ending(run(client, [mirror.read_state(TASK)])[0]) == Ending(end.state, None)


def test_only_an_end_is_believed(client):
    client.delete(mirror.key(TASK))
    assert mirror.ending(run(client, [mirror.read(TASK)])[0]) is None
    for state in ("QUEUED", "RUNNING"):
        run(client, mirror.write([Entry(TASK, 1, state)]))
        assert mirror.ending(run(client, [mirror.read(TASK)])[0]) is None


def test_a_large_result_is_left_to_the_row(client):
    client.delete(mirror.key(TASK))
    run(client, mirror.write([Entry(TASK, 1, "COMPLETED", bytes(mirror.MAX_RESULT_BYTES + 1))]))
    assert mirror.ending(run(client, [mirror.read(TASK)])[0]) == Ending("COMPLETED", None)


def test_a_mirror_lives_for_an_hour_from_its_last_change(client):
    client.delete(mirror.key(TASK))
    run(client, mirror.write([Entry(TASK, 0, "QUEUED")]))
    client.expire(mirror.key(TASK), 10)
    run(client, mirror.write([Entry(TASK, 0, "QUEUED")]))
    assert client.ttl(mirror.key(TASK)) <= 10
    run(client, mirror.write([Entry(TASK, 1, "RUNNING")]))
    assert client.ttl(mirror.key(TASK)) > 3_500


def test_an_accepted_task_replaces_nothing(client):
    client.delete(mirror.key(TASK))
    run(client, mirror.queued([TASK, uuid4()]))
    assert seen(client) == (0, 0, b"QUEUED", None)
    assert client.ttl(mirror.key(TASK)) > 3_500
    for state in ("RUNNING", "COMPLETED"):
        run(client, mirror.write([Entry(TASK, 1, state)]))
        run(client, mirror.queued([TASK]))
        assert seen(client)[2] == state.encode()
    assert len(mirror.queued([uuid4() for _ in range(mirror.SCRIPT_TASKS + 1)])) == 2


def test_many_are_several_commands(client):
    many = [Entry(uuid4(), 1, "COMPLETED", bytes(1_000)) for _ in range(2_000)]
    commands = mirror.write(many)
    assert 4 <= len(commands) <= 5
    run(client, commands)
    assert client.hget(mirror.key(many[-1].task), "result") == bytes(1_000)
    client.flushall()


def test_nothing_is_no_command():
    assert mirror.write([]) == mirror.queued([]) == mirror.announce([]) == []


def test_ids_go_through_an_announcement():
    tasks = [uuid4() for _ in range(3)]
    ((_, channel, message),) = mirror.announce(tasks)
    assert channel == mirror.DONE
    assert [UUID(bytes=raw) for raw in mirror.announced(message)] == tasks


def test_the_dispatchers_side_mirrors_first_and_then_tells(valkey: Valkey, client):
    dispatcher = SyncMirror(valkey.url)
    with client.pubsub() as ears:
        ears.subscribe(mirror.DONE)
        assert ears.get_message(timeout=5)["type"] == "subscribe"
        dispatcher.begun([(TASK, 1)])
        assert seen(client) == (1, 1, b"RUNNING", None)
        dispatcher.ended([(TASK, 1, "COMPLETED", b"result"), (uuid4(), 1, "FAILED", None)])
        message = ears.get_message(timeout=5)
        assert mirror.announced(message["data"])[0] == TASK.bytes
        assert seen(client) == (1, 2, b"COMPLETED", b"result")
    dispatcher.close()


def test_the_dispatchers_side_does_not_wait_for_a_server_that_hangs(valkey: Valkey):
    dispatcher = SyncMirror(valkey.url, timeout_s=0.2)
    valkey.freeze()
    try:
        began = time.monotonic()
        for _ in range(100):
            dispatcher.begun([(TASK, 1)])
        assert time.monotonic() - began < 1
    finally:
        valkey.thaw()
        dispatcher.close()


def test_the_dispatchers_side_never_raises_and_rests_after_a_failure(valkey: Valkey, client, caplog):
    dispatcher = SyncMirror(valkey.url, timeout_s=0.2)
    dispatcher.rest_s = 60
    valkey.kill()
    dispatcher.begun([(TASK, 1)])
    dispatcher.ended([(TASK, 1, "COMPLETED", b"result")])
    assert len([record for record in caplog.records if "not mirrored" in record.message]) == 1
    valkey.start()
    dispatcher.rest_s = dispatcher._rests_until = 0
    dispatcher.ended([(TASK, 1, "COMPLETED", b"result")])
    assert seen(client) == (1, 2, b"COMPLETED", b"result")
    dispatcher.close()

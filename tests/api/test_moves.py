"""The statements one by one: what they change, what they return, and what they leave alone."""

from __future__ import annotations

from uuid import UUID

import dill
import pytest
from django.db import IntegrityError, connection

from api import moves
from api.models import Attempt, Queue, Result, new_id
from everythingfaas.errors import IllegalMove
from everythingfaas.status import Event, Outcome, State, check_move

from .conftest import NOW, Workshop, committed, ended, released, report


def perform(workshop: Workshop, event: Event, task: UUID) -> None:
    """Let `event` happen to `task` by the statement that is there for it."""
    held = workshop.row(task)
    attempt = moves.Begun(task, held["attempt"], NOW + 2)
    with committed() as cursor:
        match event:
            case Event.CLAIM:
                moves.claim(cursor, workshop.dispatcher, [1], 100, 1 << 20, NOW)
            case Event.BEGIN:
                moves.begin(cursor, [attempt])
            case Event.COMPLETE | Event.FAIL | Event.CANCEL:
                moves.end(cursor, [ended(attempt, event)])
            case Event.REQUEUE | Event.POSTPONE:
                moves.release(cursor, [released(attempt, event)], NOW)
            case Event.PROMOTE:
                moves.promote(cursor, NOW + 61, 100)
            case Event.REJECT:
                moves.reject(cursor, [task], "no worker can run it", NOW)
            case Event.WITHDRAW:
                moves.withdraw(cursor, [task], NOW)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state_does_what_the_table_says(workshop: Workshop, state: State, event: Event) -> None:
    task = workshop.task_in(state)
    before = workshop.row(task)

    perform(workshop, event, task)

    try:
        target = check_move(state, event)
    except IllegalMove:
        assert workshop.row(task) == before
    else:
        assert workshop.state(task) is target


class TestSubmit:
    def test_reads_back_as_it_was_submitted(self, workshop: Workshop) -> None:
        given = workshop.submission(
            priority=5,
            run_after=NOW + 10.5,
            expires_at=NOW + 20,
            deadline_s=2.5,
            at_most_once=True,
            max_attempts=7,
            policy='{"retries": 1}',
            batch=new_id(),
            retry_of=new_id(),
            payload=b"\x00\xff",
        )
        with committed() as cursor:
            assert moves.submit(cursor, [given]) == [moves.Accepted(given.id, State.WAITING)]
            moves.promote(cursor, NOW + 11, 10)
            (claimed,) = moves.claim(cursor, workshop.dispatcher, [1], 1, 1 << 20, NOW + 11)

        for name in ("owner", "function", "payload", "codec", "queue", "priority", "created", "run_after"):
            assert getattr(claimed, name) == getattr(given, name), name
        for name in ("deadline_s", "at_most_once", "max_attempts", "policy"):
            assert getattr(claimed, name) == getattr(given, name), name
        row = workshop.row(given.id)
        assert UUID(str(row["batch"])) == given.batch
        assert UUID(str(row["retry_of"])) == given.retry_of

    def test_one_that_is_due_already_is_queued(self, workshop: Workshop) -> None:
        (task,) = workshop.submit(run_after=NOW - 1)
        assert workshop.state(task) is State.QUEUED

    def test_nothing_is_submitted_of_an_empty_batch(self, workshop: Workshop) -> None:
        with committed() as cursor:
            assert moves.submit(cursor, []) == []

    def test_the_same_key_and_body_is_the_first_task(self, workshop: Workshop) -> None:
        (first,) = workshop.submit(idempotency_key="k", body_hash="h")
        second = workshop.submission(idempotency_key="k", body_hash="h")
        with committed() as cursor:
            assert moves.submit(cursor, [second]) == [moves.Accepted(first, State.QUEUED, duplicate=True)]
            assert moves.read(cursor, [second.id]) == {}

    def test_the_same_key_with_another_body_is_a_conflict(self, workshop: Workshop) -> None:
        (first,) = workshop.submit(idempotency_key="k", body_hash="h")
        second = workshop.submission(idempotency_key="k", body_hash="other")
        with committed() as cursor:
            assert moves.submit(cursor, [second]) == [moves.Accepted(first, State.QUEUED, conflict=True)]
            assert moves.read(cursor, [second.id]) == {}

    def test_keys_of_two_owners_do_not_meet(self, workshop: Workshop) -> None:
        other = workshop.another_owner()
        (first,) = workshop.submit(idempotency_key="k", body_hash="h")
        (second,) = workshop.submit(idempotency_key="k", body_hash="h", owner=other)
        assert first != second

    def test_the_first_of_equal_keys_in_one_batch_is_stored(self, workshop: Workshop) -> None:
        batch = [
            workshop.submission(),
            workshop.submission(idempotency_key="b", body_hash="1"),
            workshop.submission(idempotency_key="a", body_hash="1"),
            workshop.submission(idempotency_key="b", body_hash="1"),
            workshop.submission(idempotency_key="b", body_hash="2"),
            workshop.submission(),
        ]
        with committed() as cursor:
            accepted = moves.submit(cursor, batch)
            stored = moves.read(cursor, [s.id for s in batch])
        assert accepted == [
            moves.Accepted(batch[0].id, State.QUEUED),
            moves.Accepted(batch[1].id, State.QUEUED),
            moves.Accepted(batch[2].id, State.QUEUED),
            moves.Accepted(batch[1].id, State.QUEUED, duplicate=True),
            moves.Accepted(batch[1].id, State.QUEUED, conflict=True),
            moves.Accepted(batch[5].id, State.QUEUED),
        ]
        assert set(stored) == {batch[i].id for i in (0, 1, 2, 5)}
        assert len(workshop.claim()) == 4

    def test_a_batch_may_be_repeated_when_its_commit_was_in_doubt(self, workshop: Workshop) -> None:
        batch = [workshop.submission(), workshop.submission(idempotency_key="k", body_hash="h")]
        with committed() as cursor:
            moves.submit(cursor, batch)
        batch.append(workshop.submission())
        with committed() as cursor:
            accepted = moves.submit(cursor, batch, again=True)
        assert [(a.id, a.duplicate) for a in accepted] == [
            (batch[0].id, True),
            (batch[1].id, True),
            (batch[2].id, False),
        ]
        assert len(workshop.claim()) == 3

    def test_the_same_id_twice_is_refused(self, workshop: Workshop) -> None:
        submission = workshop.submission()
        with pytest.raises(IntegrityError), committed() as cursor:
            moves.submit(cursor, [submission, submission])


class TestRead:
    def test_unknown_ids_are_left_out(self, workshop: Workshop) -> None:
        (task,) = workshop.submit()
        with connection.cursor() as cursor:
            assert set(moves.read(cursor, [task, new_id()])) == {task}
            assert moves.read(cursor, []) == {}
            assert moves.functions(cursor, [new_id()]) == {}
            assert moves.blobs(cursor, ["0" * 64]) == {}
            assert moves.blobs(cursor, []) == {}

    def test_equal_bytes_are_stored_once_and_functions_are_two(self, workshop: Workshop) -> None:
        with committed() as cursor:
            again = moves.register(cursor, workshop.owner, "other", b"function", created=NOW, pythons="3.12")
            views = moves.functions(cursor, [workshop.function, again])
            assert views[again] == moves.FunctionView(
                again, workshop.owner, "other", views[workshop.function].blob, 1, "3.12", None, ""
            )
            assert moves.blobs(cursor, [views[again].blob]) == {views[again].blob: b"function"}

    def test_queues_are_made_once(self, workshop: Workshop) -> None:
        with committed() as cursor:
            assert moves.queue_for(cursor, "") == 1
            queue = moves.queue_for(cursor, "python=3.12")
            assert queue != 1
            assert moves.queue_for(cursor, "python=3.12") == queue
        assert Queue.objects.count() == 2


class TestClaim:
    def test_in_order_of_priority_then_of_age(self, workshop: Workshop) -> None:
        with committed() as cursor:
            other = moves.queue_for(cursor, "other")
        low, high, middle = (workshop.submit(3, priority=p) for p in (-1, 9, 0))
        (mixed,) = workshop.submit(priority=9, queue=other)
        claimed = workshop.claim(limit=8, queues=[1, other])
        assert [c.task for c in claimed] == [*high, mixed, *middle, low[0]]
        assert {c.attempt for c in claimed} == {1}

    def test_never_more_than_the_limit(self, workshop: Workshop) -> None:
        workshop.submit(10)
        assert [len(workshop.claim(limit=n)) for n in (0, 1, 4, 100, 100)] == [0, 1, 4, 5, 0]

    def test_never_more_than_the_bytes_but_for_the_first(self, workshop: Workshop) -> None:
        sizes = [50, 200, 30, 30, 50, 1]
        tasks = [workshop.submit(payload=b"x" * size)[0] for size in sizes]
        rounds = [[tasks.index(c.task) for c in workshop.claim(max_bytes=100)] for _ in range(5)]
        assert rounds == [[0], [1], [2, 3], [4, 5], []]

    def test_from_the_queues_that_it_names(self, workshop: Workshop) -> None:
        with committed() as cursor:
            other = moves.queue_for(cursor, "other")
        workshop.submit(2)
        (there,) = workshop.submit(queue=other)
        assert [c.task for c in workshop.claim(queues=[other])] == [there]
        assert workshop.claim(queues=[]) == []

    def test_leaves_what_is_expired(self, workshop: Workshop) -> None:
        workshop.submit(expires_at=NOW)
        (alive,) = workshop.submit(expires_at=NOW + 1)
        assert [c.task for c in workshop.claim()] == [alive]

    def test_names_the_dispatcher_and_the_blob(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        with connection.cursor() as cursor:
            assert moves.blobs(cursor, [claimed.blob]) == {claimed.blob: b"function"}
            assert [h.task for h in moves.held(cursor, workshop.dispatcher)] == [claimed.task]
            assert moves.held(cursor, new_id()) == []

    def test_counts_the_start_of_at_most_once(self, workshop: Workshop) -> None:
        assert workshop.running(at_most_once=True).starts == 1
        assert workshop.running().starts == 0

    def test_has_work_says_whether_it_would_find_any(self, workshop: Workshop) -> None:
        with connection.cursor() as cursor:
            assert not moves.has_work(cursor, [], NOW)
            assert not moves.has_work(cursor, [1, 2], NOW)
            workshop.submit(expires_at=NOW + 1)
            assert moves.has_work(cursor, [2, 1], NOW)
            assert not moves.has_work(cursor, [2], NOW)
            assert not moves.has_work(cursor, [1], NOW + 1)


class TestBegin:
    def test_counts_the_start_once(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        begun = moves.Begun(claimed.task, claimed.attempt, NOW + 1, "w1")
        with committed() as cursor:
            assert moves.begin(cursor, [begun, begun]) == {claimed.task}
            assert moves.begin(cursor, [begun]) == set()
            assert moves.begin(cursor, []) == set()
        row = workshop.row(claimed.task)
        assert (row["starts"], row["begun"], row["started"], row["worker"]) == (1, 1, NOW + 1, "w1")

    def test_of_a_stale_attempt_changes_nothing(self, workshop: Workshop) -> None:
        first = workshop.running()
        with committed() as cursor:
            moves.release(cursor, [released(first)], NOW)
        (second,) = workshop.claim()
        assert second.attempt == 2
        before = workshop.row(first.task)
        with committed() as cursor:
            assert moves.begin(cursor, [moves.Begun(first.task, first.attempt, NOW + 9)]) == set()
            assert moves.end(cursor, [ended(first)]) == []
            assert moves.release(cursor, [released(first)], NOW) == ([], [])
        assert workshop.row(first.task) == before
        assert not Result.objects.exists()

    def test_the_first_begin_stays(self, workshop: Workshop) -> None:
        first = workshop.running()
        with committed() as cursor:
            moves.begin(cursor, [moves.Begun(first.task, first.attempt, NOW + 1)])
            moves.release(cursor, [released(first)], NOW)
            assert moves.read(cursor, [first.task])[first.task].begun
        (second,) = workshop.claim()
        assert second.started == NOW + 1
        with committed() as cursor:
            (held,) = moves.held(cursor, workshop.dispatcher)
            assert not held.begun
            moves.begin(cursor, [moves.Begun(second.task, second.attempt, NOW + 5)])
            (held,) = moves.held(cursor, workshop.dispatcher)
            assert held.begun
            assert (held.started, held.starts) == (NOW + 1, 2)


class TestEnd:
    def test_stores_result_and_attempt(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        full = report(
            Outcome.RAISED,
            exit_code=-1,
            exit_signal=9,
            error_type="ValueError",
            message="no",
            traceback="Traceback …",
            output_head=b"\x00\xff",
            output_tail=b"tail",
            output_dropped=1 << 40,
        )
        with committed() as cursor:
            (closed,) = moves.end(
                cursor,
                [ended(claimed, Event.FAIL, result=b"\x80\x00", report=full, error="ValueError: no", failures=1)],
            )
            view = moves.read(cursor, [claimed.task])[claimed.task]
        assert closed == moves.Closed(
            task=claimed.task,
            owner=workshop.owner,
            function=workshop.function,
            attempt=1,
            was=State.RUNNING,
            state=State.FAILED,
            created=NOW,
            run_after=None,
            started=NOW + 2,
            finished=NOW + 3,
            error="ValueError: no",
        )
        assert (view.state, view.result, view.error, view.begun) == (State.FAILED, b"\x80\x00", "ValueError: no", True)
        row = workshop.row(claimed.task)
        assert (row["starts"], row["failures"], row["deaths"], row["result_size"]) == (1, 1, 0, 2)
        attempt = Attempt.objects.get()
        assert attempt.pk == (claimed.task, 1)
        assert attempt.dispatcher == workshop.dispatcher
        assert attempt.ended.timestamp() == NOW + 3
        assert (attempt.outcome, attempt.exit_code, attempt.exit_signal) == (Outcome.RAISED, -1, 9)
        assert (bytes(attempt.output_head), bytes(attempt.output_tail)) == (b"\x00\xff", b"tail")
        assert attempt.output_dropped == 1 << 40

    def test_only_the_first_counts(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        late = ended(claimed, Event.FAIL, result=b"late")
        with committed() as cursor:
            assert [c.state for c in moves.end(cursor, [ended(claimed), late])] == [State.COMPLETED]
            assert moves.end(cursor, [late]) == []
            assert moves.end(cursor, []) == []
        assert bytes(Result.objects.get().data) == b"complete"
        assert Attempt.objects.count() == 1

    def test_a_batch_may_mix_current_and_stale_attempts(self, workshop: Workshop) -> None:
        first = workshop.running()
        with committed() as cursor:
            moves.release(cursor, [released(first)], NOW)
        (second,) = workshop.claim()
        with committed() as cursor:
            (closed,) = moves.end(cursor, [ended(first, result=b"old"), ended(second, result=b"new")])
        assert closed.attempt == 2
        assert bytes(Result.objects.get().data) == b"new"
        assert [a.attempt for a in Attempt.objects.order_by("attempt")] == [1, 2]

    @pytest.mark.parametrize("at_most_once", [False, True])
    @pytest.mark.parametrize("told", [False, True])
    def test_counts_the_start_unless_that_was_done(self, workshop: Workshop, *, at_most_once: bool, told: bool) -> None:
        claimed = workshop.running(at_most_once=at_most_once)
        with committed() as cursor:
            if told:
                moves.begin(cursor, [moves.Begun(claimed.task, claimed.attempt, NOW + 2)])
            moves.end(cursor, [ended(claimed)])
        assert workshop.row(claimed.task)["starts"] == 1
        assert workshop.row(claimed.task)["started"] == NOW + 2

    def test_without_a_begin_nothing_has_started(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        with committed() as cursor:
            (closed,) = moves.end(cursor, [ended(claimed, Event.CANCEL, report=report(Outcome.CANCELLED, began=None))])
        assert closed.started is None
        assert workshop.row(claimed.task)["starts"] == 0

    @pytest.mark.parametrize("nasty", ["\0", "a\0b", "\ud800", "é" * 9000, "\U0001f600" * 3000])
    def test_any_text_can_be_stored(self, workshop: Workshop, nasty: str) -> None:
        claimed = workshop.running()
        texts = dict.fromkeys(("worker", "error_type", "message", "traceback"), nasty)
        with committed() as cursor:
            assert moves.end(cursor, [ended(claimed, Event.FAIL, error=nasty, report=report(**texts))])
        attempt = Attempt.objects.get()
        assert len((attempt.traceback or "").encode()) <= 8192
        assert "\0" not in (attempt.message or "")

    def test_other_events_are_refused(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        with pytest.raises(IllegalMove), committed() as cursor:
            moves.end(cursor, [ended(claimed, Event.WITHDRAW)])
        with pytest.raises(IllegalMove), committed() as cursor:
            moves.release(cursor, [released(claimed, Event.PROMOTE)], NOW)


class TestRelease:
    def test_counts_what_happened(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        with committed() as cursor:
            answer = moves.release(cursor, [released(claimed, Event.POSTPONE, deaths=1, failures=2)], NOW)
            assert answer == ([moves.Reopened(claimed.task, workshop.owner, State.WAITING)], [])
            assert moves.next_due(cursor) == NOW + 60
        row = workshop.row(claimed.task)
        assert (row["starts"], row["deaths"], row["failures"], row["run_after"]) == (1, 1, 2, NOW + 60)
        assert Attempt.objects.get().outcome == Outcome.LOST

    @pytest.mark.parametrize("at_most_once", [False, True])
    def test_unstarted_leaves_no_trace(self, workshop: Workshop, *, at_most_once: bool) -> None:
        claimed = workshop.running(at_most_once=at_most_once)
        back = released(claimed, report=None, unstarted=True)
        with committed() as cursor:
            moves.release(cursor, [back, back], NOW)
            assert moves.release(cursor, [back], NOW) == ([], [])
        assert workshop.row(claimed.task)["starts"] == 0
        assert not Attempt.objects.exists()
        (again,) = workshop.claim()
        assert (again.attempt, again.starts) == (2, int(at_most_once))

    def test_a_start_that_was_heard_of_is_not_taken_back(self, workshop: Workshop) -> None:
        claimed = workshop.running(at_most_once=True)
        with committed() as cursor:
            moves.begin(cursor, [moves.Begun(claimed.task, claimed.attempt, NOW)])
            moves.release(cursor, [released(claimed, report=None, unstarted=True)], NOW)
        assert workshop.row(claimed.task)["starts"] == 1

    def test_ends_what_was_to_be_cancelled(self, workshop: Workshop) -> None:
        for back in ({"report": None, "unstarted": True}, {}):
            claimed = workshop.running()
            with committed() as cursor:
                assert moves.request_cancel(cursor, [claimed.task], NOW) == [claimed.task]
                assert moves.cancel_requests(cursor, workshop.dispatcher) == [(claimed.task, claimed.attempt)]
                reopened, (closed,) = moves.release(cursor, [released(claimed, **back)], NOW)
                view = moves.read(cursor, [claimed.task])[claimed.task]
            assert reopened == []
            assert closed.state is view.state is State.CANCELLED
            assert type(dill.loads(view.result)).__name__ == "TaskCancelled"

    def test_needs_a_report_of_what_may_have_begun(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        for wrong in ({"report": None}, {"run_after": NOW}, {"event": Event.POSTPONE, "run_after": None}):
            with pytest.raises(ValueError, match="needs"), committed() as cursor:
                moves.release(cursor, [released(claimed, **wrong)], NOW)


class TestTime:
    def test_promotes_what_is_due_and_no_more_than_asked(self, workshop: Workshop) -> None:
        late, later, latest = (workshop.submit(run_after=NOW + s)[0] for s in (1, 2, 3))
        with committed() as cursor:
            assert moves.next_due(cursor) == NOW + 1
            assert moves.promote(cursor, NOW, 10) == []
            assert [r.task for r in moves.promote(cursor, NOW + 2, 1)] == [late]
            assert moves.promote(cursor, NOW + 2, 10) == [moves.Reopened(later, workshop.owner, State.QUEUED)]
            assert moves.next_due(cursor) == NOW + 3
        assert workshop.state(latest) is State.WAITING

    def test_rejects_what_is_expired(self, workshop: Workshop) -> None:
        (queued,) = workshop.submit(expires_at=NOW + 1)
        (waiting,) = workshop.submit(expires_at=NOW + 2, run_after=NOW + 1)
        workshop.submit(expires_at=NOW + 3)
        workshop.submit()
        with committed() as cursor:
            assert not moves.has_expired(cursor, NOW)
            assert moves.has_expired(cursor, NOW + 2)
            (one,) = moves.reject_expired(cursor, NOW + 2, 1)
            (two,) = moves.reject_expired(cursor, NOW + 2, 10)
            assert moves.reject_expired(cursor, NOW + 2, 10) == []
            view = moves.read(cursor, [queued])[queued]
        assert (one.task, one.was, one.state) == (queued, State.QUEUED, State.FAILED)
        assert (two.task, two.was, two.state) == (waiting, State.WAITING, State.FAILED)
        assert "expired before it began" in str(dill.loads(view.result))

    def test_what_has_begun_once_does_not_expire(self, workshop: Workshop) -> None:
        claimed = workshop.running(expires_at=NOW + 1)
        with committed() as cursor:
            moves.release(cursor, [released(claimed)], NOW)
            assert moves.reject_expired(cursor, NOW + 2, 10) == []

    def test_what_has_begun_once_is_claimed_again_after_its_date(self, workshop: Workshop) -> None:
        claimed = workshop.running(expires_at=NOW + 1)
        with committed() as cursor:
            moves.release(cursor, [released(claimed)], NOW)
            again = moves.claim(cursor, workshop.dispatcher, [claimed.queue], 9, 9999, NOW + 2)
        assert [(task.task, task.attempt) for task in again] == [(claimed.task, 2)]


class TestCancel:
    def test_wherever_a_task_is(self, workshop: Workshop) -> None:
        running, done = workshop.task_in(State.RUNNING), workshop.task_in(State.COMPLETED)
        waiting, queued = workshop.task_in(State.WAITING), workshop.task_in(State.QUEUED)
        with committed() as cursor:
            closed, marked = moves.cancel(cursor, [running, done, waiting, queued, new_id()], NOW)
            views = moves.read(cursor, [waiting, queued])
        assert {(c.task, c.was, c.state) for c in closed} == {
            (waiting, State.WAITING, State.CANCELLED),
            (queued, State.QUEUED, State.CANCELLED),
        }
        assert marked == [running]
        assert workshop.row(running)["cancel_requested_at"] == NOW
        for view in views.values():
            assert type(dill.loads(view.result)).__name__ == "TaskCancelled"

    def test_the_first_request_stays(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        with committed() as cursor:
            assert moves.request_cancel(cursor, [claimed.task], NOW) == [claimed.task]
            assert moves.request_cancel(cursor, [claimed.task], NOW + 1) == [claimed.task]
        assert workshop.row(claimed.task)["cancel_requested_at"] == NOW


class TestLeases:
    def register(self, lease_s: float = 60) -> UUID:
        dispatcher = new_id()
        with committed() as cursor:
            assert moves.register_dispatcher(cursor, dispatcher, "push", 4, "there", 1, lease_s) == 1
        return dispatcher

    def test_a_row_is_taken_over_by_its_own_dispatcher(self, workshop: Workshop) -> None:
        dispatcher = self.register()
        with committed() as cursor:
            assert moves.slots_of(cursor, dispatcher) == 4
            assert moves.slots_of(cursor, new_id()) == 0
            assert moves.register_dispatcher(cursor, dispatcher, "push", 8, "there", 2, 10) == 2
            assert not moves.renew_lease(cursor, dispatcher, 1, 10, "{}")
            assert moves.renew_lease(cursor, dispatcher, 2, 10, '{"workers": []}')
            assert moves.slots_of(cursor, dispatcher) == 8

    def test_lapses_by_the_database_clock(self, workshop: Workshop) -> None:
        alive, dead = self.register(), self.register(-1)
        with committed() as cursor:
            assert moves.lapsed_dispatchers(cursor) == [dead]
            assert not moves.fence_dispatcher(cursor, alive)
            assert moves.fence_dispatcher(cursor, dead)
            assert moves.fence_dispatcher(cursor, new_id())
            assert not moves.renew_lease(cursor, dead, 1, 10, "{}")
            assert not moves.forget_dispatcher(cursor, alive)
            assert moves.forget_dispatcher(cursor, dead)
            assert moves.lapsed_dispatchers(cursor) == []

    def test_one_that_holds_tasks_is_not_forgotten(self, workshop: Workshop) -> None:
        claimed = workshop.running()
        with committed() as cursor:
            assert not moves.forget_dispatcher(cursor, workshop.dispatcher, epoch=1)
            assert moves.lapsed_dispatchers(cursor) == [workshop.dispatcher]
            moves.end(cursor, [ended(claimed)])
            assert not moves.forget_dispatcher(cursor, self.register(), epoch=9)
            assert moves.forget_dispatcher(cursor, workshop.dispatcher, epoch=1)

    def test_tasks_of_nobody_are_found(self, workshop: Workshop) -> None:
        nobody = new_id()
        workshop.submit()
        with committed() as cursor:
            moves.claim(cursor, nobody, [1], 1, 100, NOW)
            assert moves.lapsed_dispatchers(cursor) == [nobody]

    def test_adopts_from_the_dead_alone(self, workshop: Workshop) -> None:
        alive, dead, nobody = self.register(), self.register(-1), new_id()
        own = workshop.running()
        tasks = {}
        for holder in (alive, dead, nobody):
            workshop.submit()
            with committed() as cursor:
                ((tasks[holder]),) = moves.claim(cursor, holder, [1], 1, 100, NOW)
        wanted = [(own.task, 1), *((c.task, 1) for c in tasks.values()), (new_id(), 1)]
        stale = (tasks[dead].task, 7)
        with committed() as cursor:
            adopted = moves.adopt(cursor, workshop.dispatcher, [stale])
            assert adopted == []
            adopted = moves.adopt(cursor, workshop.dispatcher, wanted)
            assert moves.adopt(cursor, workshop.dispatcher, []) == []
        assert {h.task for h in adopted} == {own.task, tasks[dead].task, tasks[nobody].task}

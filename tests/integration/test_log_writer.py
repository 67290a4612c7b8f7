"""Live output in Redis: capped, short-lived, announced, and never in anybody's way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from api.mirror import LOG_CHANNEL, LOG_END_TTL_S, LOG_ENTRIES, TTL_S, log_key
from dispatcher import log_writer
from dispatcher.log_writer import LogWriter
from dispatcher.store import Printed
from tests.live import until
from tests.redis_fixture import Valkey


@pytest.fixture
def writer(valkey: Valkey) -> Iterator[LogWriter]:
    writer = LogWriter(valkey.url)
    writer.start()
    yield writer
    writer.close()


def test_output_is_appended_and_announced(writer: LogWriter, valkey: Valkey):
    task = uuid4()
    with valkey.client() as client, client.pubsub() as listener:
        listener.subscribe(LOG_CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        writer.put([Printed(str(task), 2, b"hello\xff", 7)])
        told = listener.get_message(timeout=5)
        assert UUID(bytes=told["data"]) == task
        ((_, fields),) = client.xrange(log_key(task))
        assert fields == {b"attempt": b"2", b"data": b"hello\xff", b"dropped": b"7"}
        assert TTL_S - 5 < client.ttl(log_key(task)) <= TTL_S


def test_a_stream_keeps_about_the_newest_entries(writer: LogWriter, valkey: Valkey):
    task = uuid4()
    writer.put([Printed(str(task), 1, bytes(8000)) for _ in range(3 * LOG_ENTRIES)])
    writer.put([Printed(str(task), 1, b"", last=True)])
    with valkey.client() as client:
        until(lambda: 0 < client.ttl(log_key(task)) <= LOG_END_TTL_S, what="the end of the attempt")
        assert client.xlen(log_key(task)) < 2 * LOG_ENTRIES


def test_what_does_not_fit_is_dropped(valkey: Valkey, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log_writer, "MAX_BYTES", 1000)
    writer = LogWriter(valkey.url)  # not started: nothing is written
    writer.put([Printed(str(uuid4()), 1, bytes(600)) for _ in range(10)])
    assert len(writer._items) == 2


def test_without_redis_nobody_is_held_up():
    writer = LogWriter("unix:///nowhere/redis.sock")
    writer.start()
    began = time.monotonic()
    for _ in range(1000):
        writer.put([Printed(str(uuid4()), 1, b"hello")])
    writer.close()
    assert time.monotonic() - began < 2.0
    assert not writer._thread.is_alive()

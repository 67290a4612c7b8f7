"""The bell, rung through a real Redis."""

from __future__ import annotations

import select
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from api.mirror import BELL, CANCEL, NEW_WORK
from dispatcher.bell import Bell, Line
from tests.live import until
from tests.redis_fixture import Valkey


@pytest.fixture
def rung(valkey: Valkey) -> Iterator[Counter[str]]:
    """What has been rung since the bell was connected."""
    heard: Counter[str] = Counter()
    lines: list[Line] = []

    def listen(line: Line) -> None:
        """As the loop does it, but with a thread for it."""
        lines.append(line)
        threading.Thread(target=read_all, args=(line,), daemon=True).start()

    on_ring = {NEW_WORK: lambda: heard.update(["work"]), CANCEL: lambda: heard.update(["cancel"])}
    bell = Bell(valkey.url, BELL, on_ring, listen=listen)
    bell.start()
    until(lambda: heard == {"work": 1, "cancel": 1}, what="all that may have been missed before the connection")
    heard.clear()
    yield heard
    bell.close()
    valkey.kill()  # so that the last line ends
    for line in lines:
        line.lost.wait(10)


def read_all(line: Line) -> None:
    poller = select.poll()
    poller.register(line, select.POLLIN)
    while poller.poll() and line.read():
        continue


@pytest.mark.parametrize(
    ("message", "expected"),
    [(NEW_WORK, {"work": 1}), (CANCEL, {"cancel": 1}), (b"of tomorrow", {"work": 1, "cancel": 1})],
)
def test_each_message_rings_what_it_is_for(
    valkey: Valkey, rung: Counter[str], message: bytes, expected: dict[str, int]
) -> None:
    with valkey.client() as client:
        assert client.publish(BELL, message) == 1
    until(lambda: rung == expected, timeout_s=5)


def test_what_was_missed_while_redis_was_away_is_made_up_for(valkey: Valkey, rung: Counter[str]) -> None:
    valkey.kill()
    valkey.start()
    until(lambda: rung["work"] and rung["cancel"])

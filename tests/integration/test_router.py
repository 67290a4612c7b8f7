"""The dispatcher's socket among peers that are no workers of ours, or that are and do not behave."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from dispatcher.books import Send
from dispatcher.pull import PullLink
from dispatcher.router import PEER_BYTES, REPORT_S, Rejects, RouterLink
from everythingfaas.errors import ConfigurationError
from everythingfaas.status import Outcome
from everythingfaas.wire.frames import HEADER_MAX, Encoder, read_refusal, worker_decoder
from everythingfaas.wire.messages import (
    PROTOCOL,
    Attempt,
    Blob,
    Bye,
    FromWorker,
    Function,
    Heartbeat,
    Hello,
    Job,
    Pull,
    Refuse,
    Report,
    Result,
    Returned,
    Run,
    Welcome,
)
from tests.integration.remote import LINKS, serving
from tests.live import free_port, until

VERSION = PROTOCOL.to_bytes(2, "big")
MODES = ["pull", "push"]
PEER = b"P" * PEER_BYTES


def frames(message: Any) -> list[bytes]:
    return Encoder().encode(message)


class Door:
    """A link without a loop, and peers of every kind around it. Time is what the test says."""

    def __init__(self, mode: str, address: str) -> None:
        self.address = address
        self.link: RouterLink = LINKS[mode](address, max_result_bytes=1024 * 1024)
        self.now = 1000.0
        self.heard: list[tuple[bytes, FromWorker]] = []
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()
        self.link.register(self._poller)

    def peer(self, identity: bytes | None = None, kind: int = zmq.DEALER, **options: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        for name, value in options.items():
            setattr(socket, name, value)
        if identity is not None:
            socket.routing_id = identity
        socket.connect(self.address)
        self._sockets.append(socket)
        return socket

    def wait(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Reads until `condition` holds."""

        def read() -> Any:
            self._poller.poll(5)
            self.heard += self.link.receive(self.now)
            return condition()

        return until(read, timeout_s=10, what=what)

    def rejected(self, count: int) -> None:
        self.wait(lambda: self.link.rejects.total.total() >= count, f"{count} rejects")
        assert self.link.rejects.total.total() == count

    def hears(self, identity: bytes = b"W" * PEER_BYTES) -> None:
        """A worker that behaves is heard."""
        self.heard.clear()
        self.peer(identity).send_multipart(frames(Bye("hello")))
        self.wait(lambda: (identity, Bye("hello")) in self.heard, "a good peer")

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._context.term()
        self.link.close()


@pytest.fixture(params=MODES)
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    live = Door(request.param, f"ipc://{tmp_path}/door")
    yield live
    live.close()


REPORT = Report("t", 1, Outcome.RETURNED, Blob(b""), True, 0.0, 0.0, 0)

JUNK: dict[str, list[bytes]] = {
    "an empty frame": [b""],
    "empty frames": [b"", b"", b""],
    "text": [b"GET / HTTP/1.1\r\n\r\n"],
    "a version alone": [VERSION],
    "a version and an empty header": [VERSION, b""],
    "a version and junk": [VERSION, b"\xc1junk"],
    "a thousand frames": [VERSION, b"junk", *[b""] * 998],
    "a long version": [VERSION + b"\0", b""],
    "a dispatcher's message": frames(Welcome("d", 1, 1, 1, 1, 1.0, 5.0, 300.0, 1)),
    "a frame too many": [*frames(Heartbeat()), b"more"],
    "a frame too few": frames(Result((replace(REPORT, result=Blob(bytes(2000))),)))[:2],
    "arrays in arrays": [VERSION, b"\x91" * 100_000 + b"\x90"],
    "a header cut off": [VERSION, frames(Returned((Attempt("t", 1),) * 9))[1][:-1]],
    "numbers for texts": [VERSION, b"\x93\xa3bye\x01\x02"],
    "a frame over the limit": [VERSION, b"", bytes(HEADER_MAX + 1)],
    "a header over the limit": [VERSION, bytes(HEADER_MAX + 1)],
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
def test_junk_is_counted_and_dropped(door: Door, junk: list[bytes]) -> None:
    door.peer(PEER).send_multipart(junk)
    door.rejected(1)
    assert not door.heard
    door.hears()


@pytest.mark.parametrize("identity", [None, b"short", b"L" * (PEER_BYTES + 1)], ids=["none", "short", "long"])
def test_a_connection_that_no_worker_makes(door: Door, identity: bytes | None) -> None:
    door.peer(identity).send_multipart(frames(Heartbeat()))
    door.rejected(1)
    door.hears()


def test_a_frame_beyond_what_is_read_closes_the_connection(door: Door) -> None:
    hostile = door.peer(PEER, reconnect_ivl=-1)
    monitor = hostile.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    hostile.send_multipart([VERSION, bytes(2 * HEADER_MAX + 1)])
    door.wait(lambda: monitor.poll(0), "the end of the connection")
    hostile.disable_monitor()
    monitor.close()
    assert not door.heard
    door.hears()


def test_another_version_is_refused_with_a_reason_that_it_can_read(door: Door) -> None:
    old = door.peer(PEER)
    old.send_multipart([(99).to_bytes(2, "big"), b"whatever it says there"])
    door.rejected(1)
    assert old.poll(5000)
    refusal = read_refusal(old.recv_multipart())
    assert refusal == Refuse(f"this dispatcher speaks protocol {PROTOCOL}, you speak 99")
    door.hears()


def test_the_connection_of_another_one_cannot_be_taken(door: Door) -> None:
    good = door.peer(PEER)
    good.send_multipart(frames(Bye("first")))
    door.wait(lambda: door.heard)
    thief = door.peer(PEER)
    thief.send_multipart(frames(Bye("stolen")))
    door.hears()  # by then, what the thief has sent would be here as well
    assert not door.link.send([Send(PEER, Refuse("for the first one"))], door.now)
    assert good.poll(5000)
    assert good.recv_multipart() == frames(Refuse("for the first one"))
    assert not thief.poll(50)
    good.send_multipart(frames(Bye("last")))
    door.wait(lambda: (PEER, Bye("last")) in door.heard)
    assert (PEER, Bye("stolen")) not in door.heard


def ask(door: Door, message: FromWorker, identity: bytes = PEER + b"\0\0\0\1", **options: int) -> zmq.Socket[bytes]:
    asking = door.peer(identity, zmq.REQ, **options)
    asking.send_multipart(frames(message))
    return asking


@pytest.mark.parametrize("door", ["pull"], indirect=True)
def test_a_question_for_something_else_than_tasks(door: Door) -> None:
    ask(door, Heartbeat(), req_correlate=1)
    door.rejected(1)
    ask(door, Pull(1, 1), PEER + b"\0\0\0\2")  # without the number that REQ_CORRELATE gives
    door.rejected(2)
    ask(door, Pull(1, 1), PEER)  # as if it were the worker's DEALER
    door.rejected(3)
    assert not door.heard
    door.hears()


@pytest.mark.parametrize("door", ["push"], indirect=True)
def test_a_question_where_nobody_asks(door: Door) -> None:
    ask(door, Pull(1, 1), req_correlate=1)
    door.rejected(1)
    ask(door, Pull(1, 1), PEER)
    door.rejected(2)
    door.hears()


@pytest.mark.parametrize("door", ["pull"], indirect=True)
def test_a_question_has_one_answer(door: Door) -> None:
    asking = ask(door, Pull(1, 1), req_correlate=1)
    door.wait(lambda: door.heard)
    run = Send(PEER, Run(1, ()))
    assert door.link.send([run, run], door.now) == [run]
    assert asking.poll(5000)
    assert worker_decoder().decode(asking.recv_multipart()) == run.message


def test_questions_of_nobody_do_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.pull.MAX_QUESTIONS", 10)
    link = PullLink(f"tcp://127.0.0.1:{free_port()}", max_result_bytes=1)
    try:
        for number in range(30):
            peer = number.to_bytes(PEER_BYTES, "big")
            link._read([peer + b"\0\0\0\1", b"\0\0\0\1", b"", *frames(Pull(1, 1))])
        assert len(link._questions) == 10
    finally:
        link.close()


def test_a_thousand_random_messages(door: Door) -> None:
    random_ = random.Random(1)
    hostile = door.peer(PEER)
    for _ in range(1000):
        count = random_.randrange(1, 5)
        hostile.send_multipart([random_.randbytes(random_.choice([0, 1, 2, 2, 3, 50])) for _ in range(count)])
    door.rejected(1000)
    assert set(door.link.rejects.total) <= {
        "not a message",
        "a connection that no worker of ours makes",
        f"refused, this dispatcher speaks protocol {PROTOCOL}",
    }
    assert not door.heard
    door.hears()


def test_reasons_are_told_apart_up_to_a_number_of_them() -> None:
    rejects = Rejects()
    for number in range(100):
        rejects.count(f"reason {number}", float(number))
    assert len(rejects.total) == Rejects.MAX_REASONS + 1
    assert rejects.total["others"] == 100 - Rejects.MAX_REASONS


def test_what_is_dropped_is_told_once_a_minute(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dispatcher.router")
    hostile = door.peer(PEER)
    for count in range(1, 51):
        hostile.send_multipart([b"junk"])
        door.rejected(count)
        door.now += 1.0
    assert [record.message for record in caplog.records] == ["dropped what no worker of ours sends: 1 x not a message"]
    assert door.link.next_deadline() == 1000.0 + REPORT_S
    door.now = door.link.next_deadline()
    list(door.link.receive(door.now))
    assert caplog.records[-1].message.endswith(": 49 x not a message")
    assert len(caplog.records) == 2
    assert door.link.next_deadline() == float("inf")


def test_who_stops_reading_gets_no_more_than_fits(door: Door) -> None:
    lazy = door.peer(PEER, rcvhwm=10)
    lazy.send_multipart(frames(Heartbeat()))
    door.wait(lambda: door.heard)
    sends = [Send(PEER, Function(f"{n}", Blob(bytes(10_000)))) for n in range(3000)]
    started = time.monotonic()
    unsent = door.link.send(sends, door.now)
    assert time.monotonic() - started < 2.0  # nobody waits for it
    assert 1000 < len(unsent) <= 2000
    door.hears()
    decoder = worker_decoder()
    got: list[Any] = []

    def read() -> bool:
        while lazy.poll(20):
            got.append(decoder.decode(lazy.recv_multipart()))
        return len(got) + len(unsent) >= len(sends)

    until(read, what="what was sent")
    assert {message.function for message in got}.isdisjoint(send.message.function for send in unsent)
    assert not door.link.send(unsent[:1], door.now)  # and now there is room again


def test_who_is_gone_is_sent_nothing(door: Door) -> None:
    gone = door.peer(PEER)
    gone.send_multipart(frames(Heartbeat()))
    door.wait(lambda: door.heard)
    gone.close()
    job = Send(PEER, Run(1, (Job("t", 1, "f", Blob(b""), "o"),)))
    door.wait(lambda: door.link.send([job], door.now) == [job], "the end of the connection")


def test_a_port_in_use_is_told() -> None:
    port = free_port()
    link = LINKS["push"](f"tcp://127.0.0.1:{port}", max_result_bytes=1)
    try:
        with pytest.raises(ConfigurationError, match=rf"cannot listen on tcp://127\.0\.0\.1:{port} .*in use.*-p"):
            LINKS["pull"](f"tcp://127.0.0.1:{port}", max_result_bytes=1)
    finally:
        link.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_dispatcher_under_attack_serves_on(mode: str, tmp_path: Path) -> None:
    with serving(mode, tmp_path) as served:
        context = zmq.Context()
        good = served.core.workers[0]
        hostile = context.socket(zmq.DEALER)
        hostile.routing_id = PEER
        hostile.linger = 0
        hostile.connect(served.address)
        impostor = replace(good.hello, secret="guessed", number=1000)
        random_ = random.Random(2)
        messages: list[list[bytes]] = [
            *JUNK.values(),
            *([random_.randbytes(2), random_.randbytes(30)] for _ in range(1000)),
            frames(impostor),
            frames(replace(impostor, worker="another", protocol=2)),
            frames(replace(impostor, worker="another", slots=-1)),
            frames(replace(impostor, worker="another", pulls=not impostor.pulls)),
            frames(Result((replace(REPORT, task="no such task"),))),
            frames(Heartbeat((Attempt("no such task", 1),), 2**40)),
            frames(Pull(1, 1)),
        ]
        try:
            for message in messages:
                hostile.send_multipart(message)
            started = time.monotonic()
            assert served.value(served.submit(os.getpid)) != os.getpid()
            assert time.monotonic() - started < 1.0
            until(lambda: served.link.rejects.total.total() >= len(JUNK) + 1004, what="all of the rejects")
            assert served.core.impostors == 1
            assert served.link.rejects.total["refused, another worker goes by that name"] == 1
            assert [worker.hello for worker in served.core.workers] == [good.hello]
            assert served.value(served.submit(abs, -1)) == 1
        finally:
            hostile.close()
            context.term()


@pytest.mark.parametrize("mode", MODES)
def test_a_registered_worker_may_claim_anything(mode: str, tmp_path: Path) -> None:
    """One that lists, reports and returns what it was never given changes nothing, and is told to end it."""
    with serving(mode, tmp_path) as served:
        context = zmq.Context()
        odd = context.socket(zmq.DEALER)
        odd.routing_id = PEER
        odd.linger = 0
        odd.connect(served.address)
        hello = Hello(PROTOCOL, "odd", "odd", "host", 1, (3, 11), "0.4", 1, number=1, pulls=mode == "pull")
        decoder = worker_decoder()

        def answer() -> Any:
            assert odd.poll(5000)
            return decoder.decode(odd.recv_multipart())

        try:
            odd.send_multipart(frames(hello))
            assert isinstance(answer(), Welcome)
            none = Attempt("no such task", 7)
            for message in (
                Returned((none,)),  # from here on it gets nothing
                Result((replace(REPORT, task="no such task"),)),
                Heartbeat((none,)),
                Pull(1, -5),
                Bye(),
            ):
                odd.send_multipart(frames(message))
            until(lambda: len(served.core.workers) == 1)
            assert served.value(served.submit(abs, -1)) == 1
        finally:
            odd.close()
            context.term()

"""Messages survive the way, and nothing else gets in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everythingfaas.errors import ProtocolError, VersionMismatch
from everythingfaas.status import Outcome
from everythingfaas.wire.frames import INLINE_MAX, Encoder, dispatcher_decoder, worker_decoder
from everythingfaas.wire.messages import (
    PROTOCOL,
    Attempt,
    Begun,
    Blob,
    Bye,
    Drain,
    Error,
    FromDispatcher,
    FromWorker,
    Function,
    Heartbeat,
    Hello,
    Job,
    Kill,
    NeedFunction,
    Refuse,
    Report,
    Result,
    ResultAck,
    Returned,
    Run,
    Started,
    Welcome,
)

SMALL, LARGE = Blob(b"x" * 10), Blob(b"y" * (INLINE_MAX + 1))
FROM_WORKER: list[FromWorker] = [
    Hello(PROTOCOL, "id", "name", "host", 7, (3, 11), "0.4.1", 4, 2, (Attempt("t", 1),), 3),
    Begun((Started("t", 1, 0.5),)),
    Result(
        (
            Report("t", 1, Outcome.RETURNED, LARGE, True, 0.1, 0.0, 2),
            Report(
                "u",
                2,
                Outcome.RAISED,
                SMALL,
                True,
                0.1,
                0.0,
                2,
                Error("ValueError", "x", "tb"),
                None,
                9,
                b"head",
                b"tail",
                7,
            ),
            Report("v", 3, Outcome.DIED, LARGE, False, 0.0, 0.0, -1),
        )
    ),
    Returned((Attempt("t", 1),)),
    NeedFunction(("f" * 64,)),
    Heartbeat((Attempt("t", 1),), 12),
    Drain(),
    Bye("drained"),
]
FROM_DISPATCHER: list[FromDispatcher] = [
    Welcome("d", 1, 2, 3, 4, 1.0, 5.0, 300.0, 1 << 20),
    Refuse("no", again=True),
    Run(5, (Job("t", 1, "f", SMALL, "1"), Job("u", 2, "f", LARGE, "1", 2.0, True, 64))),
    Function("f", LARGE),
    ResultAck((Attempt("t", 1),)),
    Kill((Attempt("t", 1),), Outcome.CANCELLED),
    Drain(),
    Heartbeat(seen=4),
]


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda message: type(message).__name__)
def test_what_a_worker_says_arrives(message: FromWorker) -> None:
    assert dispatcher_decoder().decode(Encoder().encode(message)) == message


@pytest.mark.parametrize("message", FROM_DISPATCHER, ids=lambda message: type(message).__name__)
def test_what_a_dispatcher_says_arrives(message: FromDispatcher) -> None:
    assert worker_decoder().decode(Encoder().encode(message)) == message


def test_large_blobs_travel_uncopied_in_frames_of_their_own() -> None:
    frames = Encoder().encode(FROM_DISPATCHER[2])
    assert len(frames) == 3
    assert frames[2] is LARGE.data


def test_an_outcome_that_there_is_not_is_refused() -> None:
    frames = Encoder().encode(Kill((), Outcome.CANCELLED))
    with pytest.raises(ProtocolError):
        worker_decoder().decode([frames[0], frames[1][:-1] + b"\x63"])


def test_the_other_direction_is_refused() -> None:
    with pytest.raises(ProtocolError):
        dispatcher_decoder().decode(Encoder().encode(FROM_DISPATCHER[0]))
    with pytest.raises(ProtocolError):
        worker_decoder().decode(Encoder().encode(FROM_WORKER[0]))


def test_another_version_is_named() -> None:
    frames = Encoder().encode(Bye())
    with pytest.raises(VersionMismatch, match="version 9") as caught:
        dispatcher_decoder().decode([(9).to_bytes(2, "big"), *frames[1:]])
    assert caught.value.theirs == 9


def test_frames_too_many_or_too_few_are_refused() -> None:
    frames = Encoder().encode(FROM_DISPATCHER[2])
    for wrong in (frames[:-1], [*frames, b"more"], frames[:1], [], [b"", b""]):
        with pytest.raises(ProtocolError):
            worker_decoder().decode(wrong)


def test_a_decoder_of_today_reads_what_tomorrow_adds_at_the_end() -> None:
    import msgspec

    header = msgspec.msgpack.encode(["bye", "reason", "something new"])
    assert dispatcher_decoder().decode([PROTOCOL.to_bytes(2, "big"), header]) == Bye("reason")


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_junk_raises_nothing_but_a_protocol_error(frames: list[bytes]) -> None:
    for candidate in (frames, [PROTOCOL.to_bytes(2, "big"), *frames]):
        for decoder in (dispatcher_decoder(), worker_decoder()):
            try:
                decoder.decode(candidate)
            except ProtocolError:
                continue


def test_mutants_raise_nothing_but_a_protocol_error() -> None:
    rng = random.Random(1)
    decoder = dispatcher_decoder()
    for message in FROM_WORKER:
        frames = Encoder().encode(message)
        for _ in range(500):
            header = bytearray(frames[1])
            for _ in range(rng.randint(1, 4)):
                header[rng.randrange(len(header))] = rng.randrange(256)
            try:
                decoder.decode([frames[0], bytes(header), *frames[2:]])
            except ProtocolError:
                continue

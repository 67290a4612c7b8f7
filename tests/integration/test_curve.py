"""CURVE: a dispatcher that others reach lets in the holders of its keys, for as long as it knows them."""

from __future__ import annotations

import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dispatcher import router
from dispatcher.books import Send
from dispatcher.keyring import Keyring
from dispatcher.pull import PullLink
from dispatcher.push import PushLink
from dispatcher.router import RouterLink
from everythingfaas import descriptors
from everythingfaas.errors import ConfigurationError
from everythingfaas.wire.messages import FromDispatcher, FromWorker, Hello, Pull, Refuse, Run
from everythingfaas.worker_key import WorkerKey, parse_worker_key
from tests.live import free_port, until
from worker.channel import Channel
from worker.pull import PullChannel

#: A connection that is refused: how long nothing has to arrive on it.
NOTHING_S = 0.5


def hello(name: str) -> Hello:
    return Hello(1, "id", name, "host", 1, (3, 11), "0.4", 1, secret="s")


class Dispatcher:
    """A link, polled until what is awaited is there."""

    def __init__(self, keyring: Keyring, kind: type[RouterLink] = PushLink) -> None:
        self.url = f"tcp://127.0.0.1:{free_port()}"
        self.link = kind(self.url, max_result_bytes=1000, keyring=keyring)
        self.received: list[tuple[bytes, FromWorker]] = []

    def turn(self) -> list[tuple[bytes, FromWorker]]:
        self.received += self.link.receive(time.monotonic())
        return self.received

    def waits_for(self, message: FromWorker) -> bytes:
        return until(lambda: next((peer for peer, found in self.turn() if found == message), None), timeout_s=5)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


@pytest.fixture
def dispatcher(keyring: Keyring) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(keyring)
    yield dispatcher
    dispatcher.link.close()


@pytest.fixture
def worker(dispatcher: Dispatcher) -> Iterator[list[Channel]]:
    channels: list[Channel] = []
    yield channels
    for channel in channels:
        channel._close_sockets(linger_ms=0)
        channel._context.term()


def answers(dispatcher: Dispatcher, channel: Channel) -> list[FromDispatcher]:
    def look() -> list[FromDispatcher]:
        dispatcher.turn()
        return channel.receive()

    found: list[FromDispatcher] = until(look, timeout_s=5)
    return found


def test_a_key_travels_as_one_line(keyring: Keyring, tmp_path: Path) -> None:
    key = keyring.create("lab-1")
    assert parse_worker_key(key.line()) == key
    (tmp_path / "file").write_text(key.line() + "\n")
    assert parse_worker_key(str(tmp_path / "file")) == key
    assert key.dispatcher == keyring.own().public == Keyring(tmp_path / "keys").own().public
    assert keyring.names() == ["lab-1"]
    assert (tmp_path / "keys" / "dispatcher.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["nowhere", "faas-worker:a:00", "faas-worker:a:" + "g" * 192, ""])
def test_what_is_no_key_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="worker-key create"):
        parse_worker_key(text)


@pytest.mark.parametrize("name", ["", "../up", "a b", "-a", "x" * 64])
def test_names_are_names(keyring: Keyring, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name"):
        keyring.create(name)


def test_a_name_is_given_once(keyring: Keyring) -> None:
    keyring.create("a")
    with pytest.raises(ConfigurationError, match="already"):
        keyring.create("a")
    keyring.revoke("a")
    with pytest.raises(ConfigurationError, match="there is no worker key"):
        keyring.revoke("a")


def test_who_has_a_key_is_let_in(keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel]) -> None:
    key = keyring.create("a")
    worker += [Channel([dispatcher.url], key), Channel([dispatcher.url], key)]  # one key serves many
    for number, channel in enumerate(worker):
        channel.send(hello(f"a@{number}"))
    peers = {dispatcher.waits_for(hello(f"a@{number}")) for number in range(2)}
    assert len(peers) == 2
    assert not dispatcher.link.rejects.total


def test_questions_pass_the_same_door(keyring: Keyring, worker: list[Channel]) -> None:
    dispatcher = Dispatcher(keyring, PullLink)
    channel = PullChannel([dispatcher.url], keyring.create("a"))
    worker.append(channel)
    channel.ask(Pull(1, 5))
    peer = dispatcher.waits_for(Pull(1, 5))
    assert dispatcher.link.send([Send(peer, Run(1, ()))], 0.0) == []
    assert answers(dispatcher, channel) == [Run(1, ())]
    dispatcher.link.close()


def test_who_has_none_is_not(keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel], tmp_path: Path) -> None:
    good = keyring.create("a")
    stranger = Keyring(tmp_path / "elsewhere").create("a")
    wrong_dispatcher = good._replace(dispatcher=stranger.dispatcher)
    unknown = WorkerKey("a", good.dispatcher, stranger.public, stranger.secret)
    worker += [Channel([dispatcher.url], key) for key in (None, wrong_dispatcher, unknown)]
    for channel in worker:
        channel.send(hello("a@1"))
    refused = "a connection with a key that is not let in"
    until(lambda: dispatcher.turn() or dispatcher.link.rejects.total[refused], timeout_s=5)
    poller = zmq.Poller()
    dispatcher.link.register(poller)
    deadline = time.monotonic() + NOTHING_S
    while (left := deadline - time.monotonic()) > 0:
        poller.poll(left * 1000)
        assert dispatcher.turn() == []
    late = Channel([dispatcher.url], good)
    worker.append(late)
    late.send(hello("a@1"))
    dispatcher.waits_for(hello("a@1"))  # and it serves on


def test_nobody_comes_under_the_name_of_another_key(
    keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel]
) -> None:
    keyring.create("b")
    channel = Channel([dispatcher.url], keyring.create("a"))
    worker.append(channel)
    channel.send(hello("b@1"))
    (answer,) = answers(dispatcher, channel)
    assert answer == Refuse("you come with a worker under a name that is not its key's")
    assert dispatcher.received == []


def test_who_is_in_with_a_revoked_key_is_put_out(
    keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel]
) -> None:
    channel = Channel([dispatcher.url], keyring.create("a"))
    worker.append(channel)
    channel.send(hello("a@1"))
    dispatcher.waits_for(hello("a@1"))
    keyring.revoke("a")
    channel.send(hello("a@2"))
    (answer,) = answers(dispatcher, channel)
    assert answer == Refuse("you come with a key that was revoked")
    assert len(dispatcher.received) == 1


def test_a_new_key_of_the_same_name_does_not_keep_the_old_one_in(
    keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel]
) -> None:
    channel = Channel([dispatcher.url], keyring.create("a"))
    worker.append(channel)
    channel.send(hello("a@1"))
    peer = dispatcher.waits_for(hello("a@1"))
    keyring.revoke("a")
    fresh = Channel([dispatcher.url], keyring.create("a"))
    worker.append(fresh)
    channel.send(hello("a@2"))
    (answer,) = answers(dispatcher, channel)
    assert answer == Refuse("you come with a key that was revoked")
    unsent = Send(peer, Run(1, ()))
    assert dispatcher.link.send([unsent], 0.0) == [unsent]  # no task goes there, either
    fresh.send(hello("a@3"))
    assert dispatcher.link.send([Send(dispatcher.waits_for(hello("a@3")), Run(1, ()))], 0.0) == []


def test_who_is_silent_gets_no_task_once_its_key_is_revoked(
    keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel]
) -> None:
    channel = Channel([dispatcher.url], keyring.create("a"))
    worker.append(channel)
    channel.send(hello("a@1"))
    sends = [Send(dispatcher.waits_for(hello("a@1")), Run(1, ()))]
    assert dispatcher.link.send(sends, 0.0) == []
    keyring.revoke("a")
    assert dispatcher.link.send(sends, 0.0) == sends


def test_a_thousand_who_say_nothing_hold_up_nobody(
    keyring: Keyring, worker: list[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not waited for, and put out when they have had their time."""
    if descriptors.allow_more() < 4096:
        pytest.skip(f"this process may open {resource.getrlimit(resource.RLIMIT_NOFILE)[1]} files: ulimit -Hn 4096")
    monkeypatch.setattr(router, "HANDSHAKE_MS", 1000)
    dispatcher = Dispatcher(keyring)
    port = int(dispatcher.url.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(1000)]
    began = time.monotonic()
    channel = Channel([dispatcher.url], keyring.create("a"))
    worker.append(channel)
    channel.send(hello("a@1"))
    dispatcher.waits_for(hello("a@1"))
    assert time.monotonic() - began < 1.0
    poll, left = select.poll(), {connection.fileno(): connection for connection in idle}
    for number in left:
        poll.register(number, select.POLLIN)

    def all_put_out() -> bool:
        for number, _ in poll.poll(0):
            if not left[number].recv(100):  # after the greeting that ZeroMQ has sent
                poll.unregister(number)
                del left[number]
        return not left

    until(all_put_out, timeout_s=15)
    channel.send(hello("a@2"))
    dispatcher.waits_for(hello("a@2"))
    for connection in idle:
        connection.close()
    dispatcher.link.close()


class Tap:
    """A wire between a worker and a dispatcher that keeps what the worker has sent."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.port = port
        self.sent = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._listener.settimeout(10)
        near, _ = self._listener.accept()
        with near, socket.create_connection(("127.0.0.1", self.port)) as far:
            while True:
                for readable in select.select([near, far], [], [])[0]:
                    data = readable.recv(65536)
                    if not data:
                        return
                    if readable is near:
                        self.sent += data
                    (far if readable is near else near).sendall(data)

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


def test_what_was_overheard_is_of_no_use(keyring: Keyring, dispatcher: Dispatcher, worker: list[Channel]) -> None:
    """The bytes of a whole connection, sent once more: each has keys of its own."""
    tap = Tap(int(dispatcher.url.rpartition(":")[2]))
    channel = Channel([tap.url], keyring.create("a"))
    channel.send(hello("a@1"))
    dispatcher.waits_for(hello("a@1"))
    channel._close_sockets(linger_ms=0)
    channel._context.term()
    tap.close()
    assert len(tap.sent) > 500  # greeting, handshake and message
    assert b"a@1" not in tap.sent
    heard = len(dispatcher.received)
    with socket.create_connection(("127.0.0.1", tap.port), timeout=10) as again:
        again.sendall(tap.sent)
        again.settimeout(0.01)

        def is_put_out() -> bool:
            dispatcher.turn()
            try:
                return not again.recv(1000)
            except TimeoutError:
                return False
            except ConnectionResetError:
                return True

        until(is_put_out, timeout_s=10)
    assert len(dispatcher.received) == heard

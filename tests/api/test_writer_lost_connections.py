"""Group commit when PostgreSQL is lost: while nobody writes, and in the middle of a COMMIT."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from django.db import connection, connections

from api.errors import OutcomeUnknown
from api.models import Task
from api.moves import Accepted
from api.writer import Writer
from everythingfaas.errors import StoreUnavailable
from tests.api.conftest import Workshop
from tests.api.test_writer import commits, queued

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def drop_connections() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    connection.close()


def test_a_connection_that_was_dropped_while_nobody_wrote_is_replaced(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        await writer.submit(workshop.submission())
        await asyncio.to_thread(drop_connections)
        (outcome,) = await asyncio.gather(writer.submit(workshop.submission()), return_exceptions=True)
        assert isinstance(outcome, StoreUnavailable)  # found out by using it
        assert await writer.submit(workshop.submission())

    connection.close()
    commits(test)
    assert Task.objects.count() == 2


class Severing:
    """A proxy before PostgreSQL that cuts the connection at COMMIT: before the server hears it, or after."""

    def __init__(self, server: Path, *, after: bool) -> None:
        self._server = server
        self._after = after
        self.cuts = 1
        self.folder = tempfile.mkdtemp(prefix="faas-proxy-")
        os.chmod(self.folder, 0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.folder}/.s.PGSQL.5432")
        self._listener.listen()
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()

    def _accept(self) -> None:
        connections = []
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            connections.append(threading.Thread(target=self._connect, args=(client,)))
            connections[-1].start()
        for thread in connections:
            thread.join()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._server / ".s.PGSQL.5432"))
            committing = threading.Event()
            down = threading.Thread(target=self._down, args=(client, server, committing))
            down.start()
            self._up(client, server, committing)
            down.join()

    def _up(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        while data := _received(client):
            if b"COMMIT" in data and self.cuts:
                self.cuts -= 1
                committing.set()
                if not self._after:
                    break
            server.sendall(data)
        _shut(server)

    def _down(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        while data := _received(server):
            if committing.is_set():
                break
            client.sendall(data)
        _shut(client)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        sock.shutdown(socket.SHUT_RDWR)


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except OSError:
        return b""


@pytest.mark.parametrize("after", [False, True], ids=["before the server hears it", "after it has committed"])
def test_a_connection_lost_at_commit_ends_as_accepted_once(workshop: Workshop, after: bool):
    settings = connections.settings["default"]
    direct = settings["HOST"]
    proxy = Severing(Path(direct), after=after)

    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        rows = [workshop.submission() for _ in range(3)]
        rows.append(workshop.submission(idempotency_key="k", body_hash="a"))
        accepted = await asyncio.gather(*map(writer.submit, rows))
        assert [a.id for a in accepted] == [s.id for s in rows]
        assert not any(a.conflict for a in accepted)

    settings["HOST"] = proxy.folder
    try:
        commits(test)
    finally:
        settings["HOST"] = direct
        proxy.close()
    assert proxy.cuts == 0
    assert Task.objects.count() == queued() == 4


def test_an_outcome_that_cannot_be_found_out_is_said_so(workshop: Workshop):
    settings = connections.settings["default"]
    direct = settings["HOST"]
    proxy = Severing(Path(direct), after=True)
    proxy.cuts = 100

    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        submission = workshop.submission()
        with pytest.raises(OutcomeUnknown, match=str(submission.id)):
            await writer.submit(submission)

    settings["HOST"] = proxy.folder
    try:
        commits(test, settle_s=0.5)
    finally:
        settings["HOST"] = direct
        proxy.close()

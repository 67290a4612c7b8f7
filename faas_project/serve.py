"""The web process: `python -m faas_project.serve`. Daphne's server, told by our settings how to run and when to stop.

SIGTERM or Ctrl-C: nobody new is let in, long polls are answered as things stand, what was accepted is committed and
answered, and the process ends with 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
from functools import partial
from io import BytesIO
from typing import Any

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server as DaphneServer
from daphne.server import reactor  # after Daphne has put in the one that runs on asyncio
from daphne.server import twisted_loop as loop
from daphne.ws_protocol import WebSocketFactory
from twisted.logger import STDLibLogObserver, globalLogBeginner

from api.redis_commands import Address
from everythingfaas import descriptors, no_pickles
from everythingfaas.alive import Pulse
from everythingfaas.errors import ConfigurationError
from everythingfaas.settings import Settings, authority

log = logging.getLogger("faas.web")

#: How long a client may take to send, or be silent on, a connection that stays open, in seconds.
IDLE_S = 60
#: A request that is not answered after so many seconds never will be. Long polls last up to 60.
REQUEST_S = 90
#: How long the rest of a body that is too large is read and thrown away, so that its sender sees the answer.
DISCARD_S = 5
#: What is kept of the time to stop, for closing things.
LAST_S = 1.0


class Request(WebRequest):  # type: ignore[misc]
    """A request of Daphne's, which would read a body of any size to a file before anybody is asked."""

    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        if length is not None and length > self.server.max_body_bytes:
            self.content = BytesIO()
            self._refuse()
        else:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        self._received += len(data)
        if self._received > self.server.max_body_bytes and not self._refused:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        """As Twisted's own, which would also parse forms, and answer in its own way where it cannot."""
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.process()

    def process(self) -> None:
        if self._refused:
            self.channel.loseConnection()
        else:
            super().process()

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """What Daphne itself has to say, in our form. 503 is its word for an application that takes too long,
        and ours for one that has done nothing."""
        from api.errors import InternalError, InvalidRequest, OutcomeUnknown
        from faas_project.guard import messages_of

        if status == 400:
            messages = messages_of(InvalidRequest(body))
        elif status == 503:
            messages = messages_of(OutcomeUnknown(f"there is no answer after {REQUEST_S} s, nor is it known why"))
        else:
            messages = messages_of(InternalError())
        for message in messages:
            self.handle_reply(message)

    def handle_reply(self, message: Any) -> None:
        if self.server.draining and message["type"] == "http.response.start" and self.channel is not None:
            self.channel.persistent = False
            self.setHeader(b"connection", b"close")
        super().handle_reply(message)

    def _refuse(self) -> None:
        """Answers now. Closing at once would reset the connection under a client that still sends."""
        from api.errors import JSON, TooLarge

        self._refused = True
        error = TooLarge(self.server.max_body_bytes)
        body = error.body()
        head = f"HTTP/1.1 {error.status} Content Too Large\r\nConnection: close\r\nContent-Type: {JSON}\r\n"
        self.channel.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body)
        self.requestHeaders.removeHeader(b"Expect")  # it was told not to continue
        loop.call_later(DISCARD_S, self.channel.loseConnection)


class Factory(HTTPFactory):  # type: ignore[misc]
    """Makes our requests."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.timeOut = IDLE_S

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def startFactory(self) -> None:  # noqa: N802
        """Twisted begins its access log here, and a clock for it that ticks each second."""

    def log(self, request: Any) -> None:
        """Twisted formats a line for each request, which nobody reads: a twentieth of what a short one costs."""


class Server(DaphneServer):  # type: ignore[misc]
    """Daphne's server on a socket that is bound already, with an end that loses nothing."""

    def __init__(self, application: Any, listener: socket.socket, settings: Settings) -> None:
        super().__init__(
            application,
            endpoints=[f"fd:fileno={listener.fileno()}"],
            http_timeout=REQUEST_S,
            request_buffer_size=settings.max_body_bytes + 1,  # each body is one message
            server_name="everythingfaas",
        )
        self.max_body_bytes = settings.max_body_bytes
        self.draining = False
        self._settings = settings
        self._listener = listener
        self._port: Any = None
        self._open: set[Any] = set()  # requests that an application is at
        self._answered = asyncio.Event()
        self._pulse = Pulse(os.environ)
        self._end: asyncio.Task[None] | None = None

    def run(self) -> None:
        """As Daphne's own, but for what it has no argument for: our requests, our socket, our way to stop."""
        self.connections: dict[Any, Any] = {}
        self.ws_factory = WebSocketFactory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
        )
        observer: Any = STDLibLogObserver("twisted")
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        asyncio.set_event_loop(loop)
        loop.call_soon(self._begin)
        reactor.run(installSignalHandlers=False)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        queue = super().create_application(protocol, scope)
        self._open.add(protocol)
        self.connections[protocol]["application_instance"].add_done_callback(partial(self._forget, protocol))
        return queue

    def protocol_disconnected(self, protocol: Any) -> None:
        if protocol in self.connections:
            super().protocol_disconnected(protocol)
            self._forget(protocol, self.connections[protocol].get("application_instance"))
        self._open.discard(protocol)
        if not self._open:
            self._answered.set()

    def _forget(self, protocol: Any, application: asyncio.Future[None] | None) -> None:
        """Drops what has ended on both sides. Daphne does so once a second, which is long for thousands of them,
        and still does it for those that ended in an exception."""
        if application is not None and (not application.done() or application.cancelled() or application.exception()):
            return
        if "disconnected" in self.connections.get(protocol, ()):
            del self.connections[protocol]

    def _begin(self) -> None:
        from api.services import services

        services()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        self._port = reactor.adoptStreamPort(self._listener.fileno(), self._listener.family, Factory(self))
        gc.collect()
        gc.freeze()  # what is here now stays: no need to look through it again and again
        self._beat()
        log.info("listening on http://%s", authority(*self._listener.getsockname()[:2]))

    def _beat(self) -> None:
        self._pulse.give(loop.time())
        if math.isfinite(self._pulse.due):
            loop.call_at(self._pulse.due, self._beat)

    def _asked_to_stop(self, number: int) -> None:
        if self._end is not None:
            log.warning("told twice to stop: stopping at once")
            os._exit(128 + number)
        self._end = loop.create_task(self._stop())

    async def _stop(self) -> None:
        from api.services import services

        log.info("stopping, with %d requests open", len(self._open))
        self.draining = True
        self._listener.close()
        self._port.stopListening()
        try:
            async with asyncio.timeout(max(0.1, self._settings.shutdown_s - LAST_S)):
                await services().let_go()
                await self._all_answered()
                await services().close()
        except TimeoutError:
            log.warning("%d requests could not be answered in time", len(self._open))
            services().abandon()
            await asyncio.sleep(LAST_S / 2)  # for the refusals to leave
            logging.shutdown()
            os._exit(0)  # a thread that hangs on the database would hold up the interpreter
        log.info("stopped")
        reactor.stop()

    async def _all_answered(self) -> None:
        while self._open:
            self._answered.clear()
            await self._answered.wait()


def listen(settings: Settings) -> socket.socket:
    """Raises OSError: the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    listener = socket.create_server((settings.listen, settings.port), family=family, backlog=1024)
    listener.setblocking(False)  # Twisted accepts until there is no more
    return listener


def main() -> int:
    no_pickles.forbid()
    descriptors.allow_more()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faas_project.settings")
    try:
        settings = Settings.from_env(os.environ)
        Address.parse(settings.redis_address)
    except ConfigurationError as exc:
        return _fail(str(exc))
    try:
        listener = listen(settings)
    except OSError as exc:
        return _fail(f"cannot listen on {authority(settings.listen, settings.port)}: {exc.strerror or exc}")
    try:
        from faas_project.asgi import application
    except ConfigurationError as exc:
        return _fail(str(exc))

    Server(application, listener, settings).run()
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"faas web: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Push: the dispatcher sends, to a DEALER socket of each worker."""

from __future__ import annotations

from dispatcher.books import Send
from dispatcher.router import PEER_BYTES, RouterLink
from everythingfaas.errors import ProtocolError
from everythingfaas.wire.messages import FromWorker


class PushLink(RouterLink):
    """A link to workers that are sent to as soon as there is something for them."""

    def _read(self, frames: list[bytes]) -> tuple[bytes, FromWorker]:
        if len(frames[0]) != PEER_BYTES:
            raise ProtocolError("a connection that no worker of ours makes")
        return frames[0], self._decode(frames[1:])

    def _envelope(self, send: Send) -> list[bytes] | None:
        return [send.peer]

"""Functions on their way to workers: each travels to each worker once."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.books import Send, Worker
from everythingfaas.wire.messages import Blob, Function

#: Functions of which the bytes are kept for workers that have not got them yet.
KEEP_BYTES = 64 * 1024 * 1024
#: Functions that a worker is believed to have are remembered up to so many; one that is not is sent again.
KNOWN_MAX = 10_000


class Shelf:
    """The bytes of functions by hash, the oldest dropped when they are too many, and who waits for which."""

    def __init__(self, *, keep_bytes: int = KEEP_BYTES) -> None:
        self._keep_bytes = keep_bytes
        self._blobs: dict[str, bytes] = {}
        self._size = 0
        self._waiting: dict[str, list[Worker]] = {}

    def __bool__(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def ask(self, worker: Worker, functions: Iterable[str]) -> tuple[list[Send], set[str]]:
        """What `worker` lacks: sent, as far as it is here, and the names of what is to be fetched."""
        sends, wanted = [], set()
        for name in functions:
            worker.functions.discard(name)
            blob = self._blobs.get(name)
            if blob is not None:
                sends.append(self._give(worker, name, blob))
            elif worker not in (waiting := self._waiting.setdefault(name, [])):
                waiting.append(worker)
                wanted.add(name)
        return sends, wanted

    def waiting(self, name: str) -> list[Worker]:
        """Who has waited for a function that was fetched; nobody does from here on."""
        return self._waiting.pop(name, [])

    def put(self, name: str, blob: bytes, workers: Iterable[Worker]) -> list[Send]:
        """It was fetched, for `workers`."""
        self._keep(name, blob)
        return [self._give(worker, name, blob) for worker in workers if name not in worker.functions]

    def _give(self, worker: Worker, name: str, blob: bytes) -> Send:
        if len(worker.functions) >= KNOWN_MAX:
            worker.functions.clear()
        worker.functions.add(name)
        return Send(worker.peer, Function(name, Blob(blob)))

    def _keep(self, name: str, blob: bytes) -> None:
        if name in self._blobs:
            return
        self._blobs[name] = blob
        self._size += len(blob)
        while self._size > self._keep_bytes and len(self._blobs) > 1:
            oldest = next(iter(self._blobs))
            self._size -= len(self._blobs.pop(oldest))

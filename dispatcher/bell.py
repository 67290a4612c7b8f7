"""Listens for the bell: one thread, blocked on Redis, that calls back for each ring."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger("dispatcher.bell")

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


class Bell:
    """Calls what `on_ring` has for the message when one is published on `channel`, and all of them after each
    (re)connection, since what was published meanwhile is lost. So it does for a message that it does not know.
    While Redis is away nothing rings, and the dispatcher looks by itself."""

    def __init__(self, redis_url: str, channel: str, on_ring: Mapping[bytes, Callable[[], None]]) -> None:
        self._channel = channel
        self._on_ring = on_ring
        self._closing = threading.Event()
        self._redis = redis.Redis.from_url(
            redis_url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=2.0, health_check_interval=0
        )
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._redis.close()

    def _run(self) -> None:
        wait_s, told = RETRY_FIRST_S, False
        while not self._closing.is_set():
            try:
                with self._redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # redis-py has it so
                    pubsub.subscribe(self._channel)
                    for message in pubsub.listen():
                        wait_s, told = RETRY_FIRST_S, False
                        if message["type"] in ("subscribe", "message"):
                            self._ring(message["data"])
            except (redis.RedisError, OSError, ValueError) as exc:
                # ValueError: the connection was closed under us by `close`.
                if not told and not self._closing.is_set():
                    log.warning("no bell, new tasks are found within a second: %s", exc)
                    told = True
            self._closing.wait(wait_s)
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _ring(self, message: bytes | int) -> None:
        known = self._on_ring.get(message) if isinstance(message, bytes) else None
        for callback in self._on_ring.values() if known is None else (known,):
            callback()

"""What the commands that start a worker do."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from everythingfaas.alive import Pulse, SignOfLife
from everythingfaas.errors import ConfigurationError
from everythingfaas.prctl import close_to_others
from everythingfaas.settings import Settings
from everythingfaas.worker_key import parse_worker_key
from worker.channel import Channel
from worker.identity import identity
from worker.loop import FLUSH_S, WorkerLoop
from worker.pool import SlotPool
from worker.pull import PullChannel
from worker.push import PushChannel
from worker.session import WorkerSession
from worker.slots import SlotLimits

log = logging.getLogger("worker")

CHANNELS: dict[str, type[Channel]] = {"pull": PullChannel, "push": PushChannel}


def run(mode: str, slots: int, urls: Sequence[str]) -> int:
    """Runs a worker in the current folder, from which functions import, until it is told to stop.

    Returns:
        The exit status: 0 when it has drained, 1 when it was refused or had to leave something behind.

    Raises:
        ConfigurationError: a setting cannot be read, or there is no room for its processes.
    """
    close_to_others()  # functions run as the same user, and the key is in our memory and environment
    settings = Settings.from_env(os.environ)
    # Only who starts us, and waits for us, limits how long what runs may take to end.
    drain_s = max(0.5, settings.shutdown_s - FLUSH_S - 0.5) if "FAAS_SHUTDOWN_S" in os.environ else None
    key = parse_worker_key(settings.worker_key) if settings.worker_key else None
    me = identity(slots, pulls=mode == "pull", key=key.name if key else "")
    pool = SlotPool(slots, folder=Path.cwd(), limits=SlotLimits(max_result_bytes=settings.max_result_bytes))
    session = WorkerSession(me, now=time.monotonic())
    alive, pulse = SignOfLife(settings.alive_file), Pulse(os.environ)
    loop = WorkerLoop(session, pool, CHANNELS[mode](urls, key), drain_s=drain_s, alive=alive, pulse=pulse)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    log.info("%s worker %s: %d slots, Python %d.%d", mode, me.name, slots, *me.python)
    gc.collect()
    gc.freeze()
    try:
        over = loop.run()
    except OSError as exc:
        raise ConfigurationError(f"the worker's processes cannot be started: {exc}") from exc
    if over.refused:
        log.error("the dispatcher refuses this worker: %s", over.reason)
    else:
        log.info("worker %s has stopped: %s", me.name, over.reason)
    return 0 if over.reason == "drained" else 1


def configure_logging() -> None:
    """Lines on standard error, as the server's processes write them."""
    level = Settings.from_env(os.environ).log_level.upper()
    logging.basicConfig(stream=sys.stderr, level=level, style="{", format="{asctime} {levelname:<7} {name}: {message}")

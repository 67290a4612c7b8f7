"""`manage.py task_dispatcher -m local -w 4`: runs a dispatcher until it is told to stop."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from api.mirror import BELL
from dispatcher.bell import Bell
from dispatcher.django_store import Announcer, DjangoStore
from dispatcher.instance import take_identity
from dispatcher.local import LocalLink
from dispatcher.log_writer import LogWriter
from dispatcher.loop import DRAIN_S, FLUSH_S, Loop
from dispatcher.scheduler import Scheduler
from dispatcher.store import Registration
from everythingfaas.errors import StoreUnavailable
from worker.slots import SlotLimits

log = logging.getLogger("dispatcher")

#: A starting dispatcher waits so long between two tries to reach the database.
START_RETRY_S = 1.0


class Command(BaseCommand):
    help = "Claims tasks from the database and runs them in worker processes of its own."
    requires_system_checks = ()  # a process that is restarted when it dies should start fast

    def add_arguments(self, parser: ArgumentParser) -> None:
        faas = settings.FAAS
        parser.add_argument("-m", "--mode", choices=["local"], required=True, help="how tasks reach workers")
        parser.add_argument(
            "-w", "--workers", type=_positive(int), default=faas.workers, help="worker processes (default: %(default)s)"
        )
        parser.add_argument(
            "--task-deadline",
            type=_positive(float),
            default=faas.task_deadline,
            metavar="SECONDS",
            help="how long a task may run (default: no limit)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        faas = settings.FAAS
        slots: int = options["workers"]
        identity, _lock = take_identity(faas.data_dir)
        announcer = Announcer(faas.redis_address)
        store = DjangoStore(identity, announcer, writer=f"dispatcher:{identity.hex}")
        registration = _register(store, options["mode"], slots)
        now = time.monotonic()
        link = LocalLink(slots, folder=Path.cwd(), limits=SlotLimits(max_result_bytes=faas.max_result_bytes), now=now)
        core = Scheduler(
            registration,
            now=now,
            task_deadline_s=options["task_deadline"],
            grace_s=0.0,  # slots of an earlier run have died with it: nobody comes back
            max_result_bytes=faas.max_result_bytes,
        )
        # What is over after the drain has to fit in as well, or a stop in order would end as a kill.
        drain_s = min(DRAIN_S, max(0.5, faas.shutdown_s - FLUSH_S - 0.5))
        logs = LogWriter(faas.redis_address)
        loop = Loop(core, store, link, drain_s=drain_s, on_printed=logs.put)
        bell = Bell(faas.redis_address, BELL, loop.ring)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        announcer.start()
        logs.start()
        bell.start()
        gc.collect()
        gc.freeze()
        log.info("dispatcher %s, epoch %d, pid %d: %d slots", identity, registration.epoch, os.getpid(), slots)
        try:
            loop.run()
        finally:
            bell.close()
            announcer.close()
            logs.close()
        log.info("dispatcher %s has stopped", identity)


def _register(store: DjangoStore, mode: str, slots: int) -> Registration:
    told = False
    while True:
        try:
            return store.register(mode=mode, slots=slots)
        except StoreUnavailable as exc:
            if not told:
                log.warning("waiting for the database: %s", exc)
                told = True
            time.sleep(START_RETRY_S)


def _positive(kind: type[int] | type[float]) -> Any:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not value > 0:
            raise ArgumentTypeError(f"{text!r} is not a number above 0")
        return value

    return parse

"""`manage.py task_dispatcher -m local|pull|push`: runs a dispatcher until it is told to stop."""

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
from django.core.management.base import BaseCommand, CommandError

from api.mirror import BELL, CANCEL, NEW_WORK
from dispatcher.bell import Bell
from dispatcher.django_store import Announcer, DjangoStore
from dispatcher.instance import take_identity
from dispatcher.keyring import Keyring
from dispatcher.local import LocalLink
from dispatcher.log_writer import LogWriter
from dispatcher.loop import DRAIN_S, FLUSH_S, LAST_S, Link, Loop
from dispatcher.pull import PullLink
from dispatcher.push import PushLink
from dispatcher.scheduler import LOST_AFTER_S, Scheduler
from dispatcher.store import Registration
from everythingfaas import descriptors, no_pickles
from everythingfaas.alive import Pulse, SignOfLife
from everythingfaas.errors import ConfigurationError, StoreUnavailable
from everythingfaas.settings import MODES, Settings, dispatcher_address
from worker.slots import SlotLimits

log = logging.getLogger("dispatcher")

#: A starting dispatcher waits so long between two tries to reach the database.
START_RETRY_S = 1.0


class Command(BaseCommand):
    help = "Claims tasks from the database, and runs them in processes of its own (local) or on workers (pull, push)."
    requires_system_checks = ()  # a process that is restarted when it dies should start fast

    def add_arguments(self, parser: ArgumentParser) -> None:
        faas = settings.FAAS
        parser.add_argument(
            "-m",
            "--mode",
            choices=MODES,
            required=True,
            help="who runs tasks: processes of this one, workers that ask, or workers that are sent to",
        )
        parser.add_argument(
            "-w",
            "--workers",
            type=_positive(int),
            default=faas.workers,
            help="local: how many processes (default: %(default)s)",
        )
        parser.add_argument(
            "-p",
            "--port",
            type=_port,
            default=faas.dispatcher_port,
            help="pull and push: where workers connect (default: %(default)s)",
        )
        parser.add_argument(
            "--task-deadline",
            type=_positive(float),
            default=faas.task_deadline,
            metavar="SECONDS",
            help="how long a task may run (default: no limit)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        no_pickles.forbid()
        faas = settings.FAAS
        mode: str = options["mode"]
        slots: int = options["workers"] if mode == "local" else 0
        identity, _lock = take_identity(faas.data_dir)
        announcer = Announcer(faas.redis_address)
        store = DjangoStore(identity, announcer, writer=f"dispatcher:{identity.hex}")
        try:
            link = _link(faas, mode, slots, options["port"])
        except ConfigurationError as exc:
            raise CommandError(str(exc)) from exc
        registration = _register(store, mode, slots)
        core = Scheduler(
            registration,
            now=time.monotonic(),
            task_deadline_s=options["task_deadline"],
            # Slots of our own have died with an earlier run: nobody comes back. Workers do.
            grace_s=0.0 if mode == "local" else LOST_AFTER_S,
            max_result_bytes=faas.max_result_bytes,
            unmatched_s=faas.unmatched_s,
            pulls=mode == "pull",
        )
        # What is over after the drain has to fit in as well, or a stop in order would end as a kill.
        drain_s = min(DRAIN_S, max(0.5, faas.shutdown_s - FLUSH_S - 0.5))
        leave_s = faas.shutdown_s - LAST_S
        logs = LogWriter(faas.redis_address)
        loop = Loop(
            core,
            store,
            link,
            drain_s=drain_s,
            leave_s=leave_s,
            alive=SignOfLife(faas.alive_file),
            pulse=Pulse(os.environ),
            on_printed=logs.put,
        )
        bell = Bell(faas.redis_address, BELL, {NEW_WORK: loop.ring, CANCEL: loop.look}, listen=loop.poll)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        announcer.start()
        logs.start()
        bell.start()
        gc.collect()
        gc.freeze()
        where = f"{slots} slots" if mode == "local" else dispatcher_address(faas.dispatcher_bind, options["port"])
        log.info("dispatcher %s, epoch %d, pid %d: %s, %s", identity, registration.epoch, os.getpid(), mode, where)
        try:
            loop.run()
        finally:
            bell.close()
            announcer.close()
            logs.close()
        log.info("dispatcher %s has stopped", identity)
        if core.lease_lost:
            # Whoever supervises this process is to start it again, with a row of its own.
            raise CommandError("another process has taken over what this dispatcher had given out; start it again")


def _link(faas: Settings, mode: str, slots: int, port: int) -> Link:
    if mode == "local":
        limits = SlotLimits(max_result_bytes=faas.max_result_bytes)
        return LocalLink(slots, folder=Path.cwd(), limits=limits, now=time.monotonic())
    descriptors.allow_more()
    kind = PullLink if mode == "pull" else PushLink
    return kind(
        dispatcher_address(faas.dispatcher_bind, port),
        max_result_bytes=faas.max_result_bytes,
        keyring=None if faas.dispatcher_is_private else Keyring(faas.keys_folder),
    )


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


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return int(text)


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

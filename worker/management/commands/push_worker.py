"""`manage.py push_worker 4 tcp://localhost:5555`: see `worker.command`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from worker.arguments import add_arguments
from worker.command import run


class Command(BaseCommand):
    help = "Runs what a dispatcher in push mode sends."
    requires_system_checks = ()  # it uses nothing of Django

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(run("push", options["slots"], options["urls"]))

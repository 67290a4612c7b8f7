"""`manage.py after_restore`: to be run after the database was restored from a backup, before anything is started."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection, transaction

from api import moves


class Command(BaseCommand):
    help = (
        "Run this after restoring the database from a backup, before anything is started again: workers may still "
        "run attempts whose numbers the restored database is about to give out a second time, and drop them now."
    )
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            generation = moves.restored(cursor)
        self.stdout.write(f"This is generation {generation} of the database. Now start the dispatchers.")

"""Model fields of our own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class UnixTimeField(models.DateTimeField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A moment, stored as float seconds since 1970 UTC; an aware datetime to whoever uses the ORM.

    The hot statements write and compare such times by the thousand, and both databases do that with a
    float without any conversion. Forms, the admin and serializers treat the field as what it derives from.
    Comparisons (`__lt`, `__gte`, `__range`) take both; lookups of parts of a date do not exist.
    """

    def get_internal_type(self) -> str:
        # Not "DateTimeField": for that the backends would install converters of their own.
        return "UnixTimeField"

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "double precision" if connection.vendor == "postgresql" else "real"

    def rel_db_type(self, connection: BaseDatabaseWrapper) -> str:
        return self.db_type(connection)

    def to_python(self, value: Any) -> Any:
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else super().to_python(value)

    def from_db_value(self, value: float | None, *_: Any) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> float | None:
        moment = value if prepared else self.get_prep_value(value)
        return None if moment is None else moment.timestamp()

"""The tables of batches. The tasks themselves are rows like any others."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from api.fields import UnixTimeField


class Batch(models.Model):
    """Tasks that a client wants to speak of together."""

    id = models.UUIDField(primary_key=True, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    #: What the client calls it. Several may have the same name; the newest is meant.
    name = models.CharField(max_length=255, blank=True, default="")
    created = UnixTimeField(default=timezone.now)
    #: How many tasks it has. Its row is updated with each part, so the numbers of tasks have no holes.
    size = models.PositiveIntegerField(default=0)

    class Meta:
        app_label = "api"
        indexes: ClassVar = [
            models.Index("owner", "name", "id", name="batch_by_name"),
            models.Index("owner", "id", name="batch_owner"),
        ]

    def __str__(self) -> str:
        return self.name or str(self.id)


class BatchPart(models.Model):
    """What came in with one request.

    It holds the ids of its tasks, so that nobody has to look for them in the table of tasks, which needs no index
    by batch for it: that would be one more tree to write for each task.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    #: How many tasks the batch had before.
    first = models.PositiveIntegerField()
    #: The ids of its tasks in their order, 16 bytes each.
    tasks = models.BinaryField()
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    #: Hash of the request that came with the key.
    body_hash = models.CharField(max_length=64, null=True, blank=True)

    class Meta:
        app_label = "api"
        # Not unique: a part may have no task.
        indexes: ClassVar = [models.Index("batch", "first", name="batch_part_order")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner", "idempotency_key"],
                name="batch_idempotency",
                condition=Q(idempotency_key__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.batch_id} from {self.first}"

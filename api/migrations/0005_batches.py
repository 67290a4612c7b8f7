"""Batches, and what came in with one request of each. The table of tasks is as it was."""

from __future__ import annotations

from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import api.fields


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("api", "0004_access"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="Batch",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(blank=True, default="", max_length=255)),
                ("created", api.fields.UnixTimeField(default=django.utils.timezone.now)),
                ("size", models.PositiveIntegerField(default=0)),
                (
                    "owner",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="BatchPart",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("first", models.PositiveIntegerField()),
                ("tasks", models.BinaryField()),
                ("idempotency_key", models.CharField(blank=True, max_length=255, null=True)),
                ("body_hash", models.CharField(blank=True, max_length=64, null=True)),
                (
                    "batch",
                    models.ForeignKey(
                        db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, to="api.batch"
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(models.F("owner"), models.F("name"), models.F("id"), name="batch_by_name"),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(models.F("owner"), models.F("id"), name="batch_owner"),
        ),
        migrations.AddIndex(
            model_name="batchpart",
            index=models.Index(models.F("batch"), models.F("first"), name="batch_part_order"),
        ),
        migrations.AddConstraint(
            model_name="batchpart",
            constraint=models.UniqueConstraint(
                condition=models.Q(("idempotency_key__isnull", False)),
                fields=("owner", "idempotency_key"),
                name="batch_idempotency",
            ),
        ),
    ]

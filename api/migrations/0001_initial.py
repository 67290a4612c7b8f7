"""All tables, in the order in which they are explained in `api.models`."""

from __future__ import annotations

from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import api.fields
import api.models


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="Blob",
            fields=[
                ("sha256", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("size", models.PositiveIntegerField()),
                ("data", models.BinaryField()),
                ("created", api.fields.UnixTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("id", models.SmallAutoField(primary_key=True, serialize=False)),
                ("requirements", models.TextField(unique=True)),
            ],
        ),
        migrations.CreateModel(
            name="Function",
            fields=[
                ("id", models.UUIDField(default=api.models.new_id, editable=False, primary_key=True, serialize=False)),
                (
                    "owner",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.PROTECT, to=settings.AUTH_USER_MODEL
                    ),
                ),
                ("name", models.CharField(max_length=255)),
                ("blob", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="api.blob")),
                (
                    "queue",
                    models.ForeignKey(
                        db_index=False, default=1, on_delete=django.db.models.deletion.PROTECT, to="api.queue"
                    ),
                ),
                ("source", models.TextField(blank=True, null=True)),
                ("pythons", models.CharField(blank=True, default="", max_length=64)),
                ("dill_version", models.CharField(blank=True, default="", max_length=32)),
                ("policy", models.TextField(blank=True, null=True)),
                ("created", api.fields.UnixTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "indexes": [models.Index(models.F("owner"), models.F("name"), models.F("id"), name="function_by_name")],
            },
        ),
        migrations.CreateModel(
            name="Dispatcher",
            fields=[
                ("id", models.UUIDField(default=api.models.new_id, editable=False, primary_key=True, serialize=False)),
                ("epoch", models.PositiveIntegerField(default=1)),
                ("mode", models.CharField(max_length=16)),
                ("slots", models.PositiveIntegerField(default=0)),
                ("host", models.CharField(max_length=255)),
                ("pid", models.PositiveIntegerField()),
                ("lease_until", api.fields.UnixTimeField()),
                ("snapshot", models.TextField(default="{}")),
                ("started", api.fields.UnixTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Task",
            fields=[
                ("id", models.UUIDField(default=api.models.new_id, editable=False, primary_key=True, serialize=False)),
                (
                    "owner",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "function",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="api.function",
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        default=1,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="api.queue",
                    ),
                ),
                ("batch", models.UUIDField(blank=True, null=True)),
                ("state", models.PositiveSmallIntegerField(choices=api.models.state_choices, default=2)),
                ("priority", models.SmallIntegerField(default=0)),
                ("attempt", models.PositiveIntegerField(default=0)),
                ("begun", models.PositiveIntegerField(default=0)),
                ("starts", models.PositiveSmallIntegerField(default=0)),
                ("deaths", models.PositiveSmallIntegerField(default=0)),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                ("run_after", api.fields.UnixTimeField(blank=True, null=True)),
                ("expires_at", api.fields.UnixTimeField(blank=True, null=True)),
                ("deadline_s", models.FloatField(blank=True, null=True)),
                ("at_most_once", models.BooleanField(default=False)),
                ("max_attempts", models.PositiveSmallIntegerField(default=3)),
                ("policy", models.TextField(blank=True, null=True)),
                (
                    "dispatcher",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="api.dispatcher",
                    ),
                ),
                ("worker", models.CharField(blank=True, max_length=128, null=True)),
                ("created", api.fields.UnixTimeField(default=django.utils.timezone.now)),
                ("started", api.fields.UnixTimeField(blank=True, null=True)),
                ("finished", api.fields.UnixTimeField(blank=True, null=True)),
                ("cancel_requested_at", api.fields.UnixTimeField(blank=True, null=True)),
                ("retry_of", models.UUIDField(blank=True, null=True)),
                ("idempotency_key", models.CharField(blank=True, max_length=255, null=True)),
                ("body_hash", models.CharField(blank=True, max_length=64, null=True)),
                ("error", models.TextField(blank=True, null=True)),
                ("payload_size", models.PositiveIntegerField(default=0)),
                ("result_size", models.PositiveIntegerField(blank=True, null=True)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("queue"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("id"),
                        condition=models.Q(("state", 2)),
                        name="task_claim",
                    ),
                    models.Index(condition=models.Q(("state", 1)), fields=["run_after"], name="task_due"),
                    models.Index(condition=models.Q(("state", 3)), fields=["dispatcher"], name="task_held"),
                    models.Index(
                        condition=models.Q(("expires_at__isnull", False), ("state__in", [1, 2])),
                        fields=["expires_at"],
                        name="task_expiry",
                    ),
                    models.Index(condition=models.Q(("state", 5)), fields=["id"], name="task_failed"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("idempotency_key__isnull", False)),
                        fields=("owner", "idempotency_key"),
                        name="task_idempotency",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Payload",
            fields=[
                (
                    "task",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="api.task",
                    ),
                ),
                ("codec", models.PositiveSmallIntegerField(choices=[(0, "dill"), (1, "JSON")], default=0)),
                ("data", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="Result",
            fields=[
                (
                    "task",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="api.task",
                    ),
                ),
                ("codec", models.PositiveSmallIntegerField(choices=[(0, "dill"), (1, "JSON")], default=0)),
                ("data", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "task_id", "attempt", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "task",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="api.task",
                    ),
                ),
                ("attempt", models.PositiveIntegerField()),
                ("dispatcher", models.UUIDField(null=True)),
                ("worker", models.CharField(max_length=128, null=True)),
                ("slot", models.IntegerField(null=True)),
                ("began", api.fields.UnixTimeField(null=True)),
                ("ended", api.fields.UnixTimeField()),
                ("outcome", models.PositiveSmallIntegerField(choices=api.models.outcome_choices)),
                ("exit_code", models.IntegerField(null=True)),
                ("exit_signal", models.SmallIntegerField(null=True)),
                ("error_type", models.CharField(max_length=255, null=True)),
                ("message", models.TextField(null=True)),
                ("traceback", models.TextField(null=True)),
                ("output_head", models.BinaryField(null=True)),
                ("output_tail", models.BinaryField(null=True)),
                ("output_dropped", models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Counter",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "writer", "owner_id", "state", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("writer", models.CharField(max_length=64)),
                (
                    "owner",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("state", models.PositiveSmallIntegerField(choices=api.models.state_choices)),
                ("count", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Rollup",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "minute",
                        "writer",
                        "owner_id",
                        "series",
                        "bucket",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("minute", models.PositiveIntegerField()),
                ("writer", models.CharField(max_length=64)),
                (
                    "owner",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("series", models.PositiveSmallIntegerField(choices=api.models.series_choices)),
                ("bucket", models.SmallIntegerField()),
                ("count", models.PositiveIntegerField(default=0)),
                ("total_s", models.FloatField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Instance",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("generation", models.PositiveIntegerField(default=1)),
            ],
        ),
    ]

"""Tokens and what belongs to them; and an index of tasks by owner, but for those of `local`."""

from __future__ import annotations

from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import api.fields


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("api", "0003_task_retries"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", api.fields.UnixTimeField(default=django.utils.timezone.now)),
                ("user", models.CharField(max_length=150)),
                ("by", models.CharField(blank=True, default="", max_length=128)),
                ("address", models.CharField(blank=True, default="", max_length=64)),
                ("action", models.CharField(max_length=32)),
                ("target", models.CharField(blank=True, default="", max_length=255)),
                ("count", models.PositiveIntegerField(default=1)),
            ],
            options={
                "verbose_name": "audit entry",
                "verbose_name_plural": "audit log",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Quota",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="faas_quota",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "queued_tasks",
                    models.PositiveIntegerField(blank=True, help_text="tasks that wait, at most", null=True),
                ),
                (
                    "stored_bytes",
                    models.PositiveBigIntegerField(
                        blank=True, help_text="of functions, arguments and results together, at most", null=True
                    ),
                ),
                (
                    "requests_per_s",
                    models.FloatField(blank=True, help_text="in each web process, over some seconds", null=True),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Ticket",
            fields=[
                ("sha256", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("credential", models.CharField(max_length=128)),
                ("expires_at", api.fields.UnixTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Token",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("sha256", models.CharField(editable=False, max_length=64, unique=True)),
                ("prefix", models.CharField(editable=False, max_length=16)),
                ("scopes", models.CharField(default="read submit", max_length=64)),
                ("created", api.fields.UnixTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires_at", api.fields.UnixTimeField(blank=True, null=True)),
                ("revoked_at", api.fields.UnixTimeField(blank=True, editable=False, null=True)),
                ("last_used", api.fields.UnixTimeField(blank=True, editable=False, null=True)),
            ],
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(condition=models.Q(("owner__gt", 1)), fields=["owner", "id"], name="task_owner"),
        ),
        migrations.AddField(
            model_name="token",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="faas_tokens", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddConstraint(
            model_name="token",
            constraint=models.UniqueConstraint(
                condition=models.Q(("revoked_at__isnull", True)), fields=("name",), name="token_name"
            ),
        ),
    ]

"""An index by which the retries of a task are found. It holds the few tasks that are one."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("api", "0002_first_rows")]

    operations: ClassVar = [
        migrations.AddIndex(
            "task",
            models.Index(fields=["retry_of"], name="task_retries", condition=models.Q(retry_of__isnull=False)),
        )
    ]

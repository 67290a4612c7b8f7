"""The rows that everything else takes for granted, and how PostgreSQL is to look after the busy tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import migrations

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def add_first_rows(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    alias = schema_editor.connection.alias
    app_label, model_name = settings.AUTH_USER_MODEL.split(".")
    user = apps.get_model(app_label, model_name)
    user.objects.using(alias).get_or_create(username="local", defaults={"password": make_password(None)})
    # Without an id of our own, so that PostgreSQL's sequence moves on as well: it gets 1, as the first.
    apps.get_model("api", "Queue").objects.using(alias).create(requirements="")
    apps.get_model("api", "Instance").objects.using(alias).create(id=1)


def look_after_busy_tables(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor != "postgresql":
        return
    # A task's row has some four versions in a second or two: the defaults let a fifth of a table of millions
    # be dead before anybody sweeps. Counters are one page that each commit rewrites: room for it in place.
    schema_editor.execute("ALTER TABLE api_task SET (autovacuum_vacuum_scale_factor = 0.02, fillfactor = 85)")
    schema_editor.execute("ALTER TABLE api_counter SET (autovacuum_vacuum_threshold = 500, fillfactor = 25)")
    schema_editor.execute("ALTER TABLE api_rollup SET (autovacuum_vacuum_scale_factor = 0.02, fillfactor = 50)")
    schema_editor.execute("ALTER TABLE api_dispatcher SET (fillfactor = 25)")


class Migration(migrations.Migration):
    dependencies: ClassVar = [("api", "0001_initial")]

    operations: ClassVar = [
        migrations.RunPython(add_first_rows, migrations.RunPython.noop),
        migrations.RunPython(look_after_busy_tables, migrations.RunPython.noop),
    ]

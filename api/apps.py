from __future__ import annotations

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """The Django app that holds the tables and answers over HTTP."""

    name = "api"
    verbose_name = "EverythingFaaS"

    def ready(self) -> None:
        from api.access import signals  # needs the models

        signals.connect()

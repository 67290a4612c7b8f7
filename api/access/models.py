"""The tables of tokens and of what belongs to them."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from api.fields import UnixTimeField


class Token(models.Model):
    """What a program shows to be let in. The secret itself is stored nowhere."""

    #: What it is for, in the words of whoever made it.
    name = models.CharField(max_length=100)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="faas_tokens")
    #: Of its 256 random bits. Nothing slower is needed: there is nothing to guess.
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    #: Its first characters, to know it by.
    prefix = models.CharField(max_length=16, editable=False)
    #: Names with blanks between them: see `api.access.caller.SCOPES`.
    scopes = models.CharField(max_length=64, default="read submit")
    created = UnixTimeField(default=timezone.now, editable=False)
    #: Null: never.
    expires_at = UnixTimeField(null=True, blank=True)
    revoked_at = UnixTimeField(null=True, blank=True, editable=False)
    #: To the minute.
    last_used = UnixTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user", "name"], name="token_name_of_user", condition=Q(revoked_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Ticket(models.Model):
    """Opens one WebSocket, once, within seconds, for whoever it was made for."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    #: What it stands for: see `api.access.caller.Caller.credential`.
    credential = models.CharField(max_length=128)
    expires_at = UnixTimeField()

    def __str__(self) -> str:
        return f"ticket {self.sha256[:8]}…"


class Quota(models.Model):
    """What a user may use. Empty: as much as they like."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="faas_quota"
    )
    queued_tasks = models.PositiveIntegerField(null=True, blank=True, help_text="tasks that wait, at most")
    stored_bytes = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="of functions, arguments and results together, at most"
    )
    requests_per_s = models.FloatField(null=True, blank=True, help_text="in each web process, over some seconds")

    def __str__(self) -> str:
        return f"quota of {self.user}"


class AuditEntry(models.Model):
    """Who did what, from where. Rows are added, and never changed.

    Names stand here as text, so that an entry outlives the user and the token that it speaks of.
    """

    at = UnixTimeField(default=timezone.now)
    user = models.CharField(max_length=150)
    #: The token's name and prefix, or `session`, or `console`.
    by = models.CharField(max_length=128, blank=True, default="")
    address = models.CharField(max_length=64, blank=True, default="")
    action = models.CharField(max_length=32)
    target = models.CharField(max_length=255, blank=True, default="")
    #: How often, since the entry before: submits are counted, and written some seconds apart.
    count = models.PositiveIntegerField(default=1)

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.user}: {self.action} {self.target}"

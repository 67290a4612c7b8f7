"""Tokens, quotas and the audit log in the admin. For administrators alone: who makes tokens can be anybody."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from api.access import tokens
from api.access.caller import SCOPES
from api.models import AuditEntry, Quota, Token

#: Rows of a page.
PER_PAGE = 50


class ForAdministrators(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Nobody else sees or changes these, whatever permissions they were given."""

    list_per_page = PER_PAGE
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)


class TokenForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in the stubs only
    """What a token is made from."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES], initial=["read", "submit"], widget=forms.CheckboxSelectMultiple
    )
    days = forms.FloatField(
        required=False, min_value=0, max_value=tokens.MAX_DAYS, help_text="until it expires; empty: never"
    )

    class Meta:
        model = Token
        fields = ("name", "user")

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if "admin" in said.get("scopes", ()) and said.get("user") and not said["user"].is_superuser:
            raise ValidationError("The scope admin is for administrators alone.")
        if Token.objects.filter(name=said.get("name"), user=said.get("user"), revoked_at=None).exists():
            raise ValidationError("That user has a token of that name: revoke it, or choose another name.")
        return said


@admin.register(Token)
class TokenAdmin(ForAdministrators):
    list_display = ("name", "prefix", "user", "scopes", "created", "expires_at", "last_used", "revoked_at")
    list_select_related = ("user",)
    search_fields = ("name", "prefix", "user__username")
    actions = ("revoke",)
    add_form = TokenForm

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return TokenForm if obj is None else super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name", "user", "scopes", "days") if obj is None else self.list_display

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return obj is None and super().has_change_permission(request)  # the list has an action

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # revoked ones are kept, that the audit log can be read

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        said = form.cleaned_data
        token, secret = tokens.create(said["name"], said["user"], said["scopes"], said["days"])
        obj.__dict__.update(token.__dict__)
        self.message_user(request, f"The token, which is not shown again: {secret}", messages.WARNING)

    @admin.action(description="Revoke")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Token]) -> None:
        number = 0
        for token in queryset.filter(revoked_at=None):
            tokens.revoke_one(token)
            self.log_change(request, token, "revoked")
            number += 1
        self.message_user(request, f"{number} revoked: nobody is let in with them any more.")


@admin.register(Quota)
class QuotaAdmin(ForAdministrators):
    list_display = ("user", "queued_tasks", "stored_bytes", "requests_per_s")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)


@admin.register(AuditEntry)
class AuditAdmin(ForAdministrators):
    """Rows are added by what happens, and nobody can change or delete them here."""

    list_display = ("at", "user", "by", "address", "action", "target", "count")
    list_filter = ("action",)
    search_fields = ("user__startswith", "target__startswith", "address")
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

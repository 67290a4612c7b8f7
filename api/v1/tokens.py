"""`/api/v1/tokens`: everybody's own, and with the scope admin those of all.

A token makes others of no wider scope and no later end than its own. So whoever has got hold of one gains nothing but
what the audit log tells of: which token has made which.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api.access import tokens
from api.access.caller import ADMIN, READ, SCOPES, SUBMIT, Caller, caller_of
from api.access.signals import record_of
from api.errors import ApiError, Forbidden, InvalidRequest, NotFound
from api.models import Token
from api.serializers import TextField
from api.v1 import parameters


class NoTokens(ApiError):
    """Where everybody is the user `local`, a token would open nothing but the same service later, without its owner
    knowing."""

    status = 409
    code = "tokens_off"

    def __init__(self) -> None:
        super().__init__("no tokens are asked for here, so there are none: FAAS_AUTH=token turns them on")


class NewTokenSerializer(serializers.Serializer[Any]):
    """`POST /api/v1/tokens`."""

    name = TextField(max_length=100, help_text="what it is for; no other that is let in has the same name")
    scopes = serializers.MultipleChoiceField(
        choices=SCOPES, required=False, allow_empty=False, help_text="default: read and submit, as far as you have them"
    )
    expires_days = serializers.FloatField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=tokens.MAX_DAYS,
        help_text="default: when the token that asks for it expires, or never",
    )
    user = TextField(required=False, max_length=150, help_text="whose it will be; of others, for administrators alone")

    def validate_expires_days(self, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise serializers.ValidationError("expected a number of days")
        return value


class TokenSerializer(serializers.Serializer[Token]):
    """A token, without itself."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    prefix = serializers.CharField(help_text="what it begins with")
    user = serializers.CharField(source="user.username")
    scopes = serializers.SerializerMethodField()
    created = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used = serializers.DateTimeField(allow_null=True, help_text="to the minute")

    def get_scopes(self, token: Token) -> list[str]:
        return token.scopes.split()


class MadeTokenSerializer(TokenSerializer):
    """A new token."""

    token = serializers.CharField(help_text="the token itself, which is not shown again")


class TokenPageSerializer(serializers.Serializer[Any]):
    tokens = TokenSerializer(many=True)
    next = serializers.IntegerField(allow_null=True, help_text="`before` of the next page; null on the last one")


class TokenList(APIView):
    """`GET /api/v1/tokens`: those that have not been revoked, the newest first. `POST` makes one, and shows it once."""

    needs: ClassVar = {"GET": (READ,), "POST": (SUBMIT,)}

    def get(self, request: Request) -> Response:
        page = parameters.page(request.query_params, before=parameters.number)
        found, following = page.of(_seen(_caller(request)))
        return Response(TokenPageSerializer({"tokens": found, "next": following}).data)

    def post(self, request: Request) -> Response:
        caller = _caller(request)
        said = NewTokenSerializer(data=request.data)
        said.is_valid(raise_exception=True)
        user = _user(caller, said.validated_data.get("user"))
        scopes = _scopes(caller, said.validated_data.get("scopes"))
        try:
            token, secret = tokens.create(
                said.validated_data["name"],
                user,
                scopes,
                said.validated_data.get("expires_days"),
                not_after=None if ADMIN in caller.scopes else tokens.end_of(caller),
                at_most=tokens.OF_A_USER,
            )
        except tokens.NotPossible as exc:
            raise InvalidRequest(str(exc), field=exc.field) from None
        record_of(caller, request, "token-create", f"{token} for {user}: {token.scopes}")
        return Response(TokenSerializer(token).data | {"token": secret}, status=201)


class TokenDetail(APIView):
    """`GET /api/v1/tokens/{id}`: a token. `DELETE` revokes it."""

    needs: ClassVar = {"GET": (READ,), "DELETE": (SUBMIT,)}

    def get(self, request: Request, token_id: str) -> Response:
        return Response(TokenSerializer(_found(_caller(request), token_id)).data)

    def delete(self, request: Request, token_id: str) -> Response:
        caller = _caller(request)
        token = _found(caller, token_id)
        tokens.revoke_one(token)
        record_of(caller, request, "token-revoke", f"{token} of {token.user}")
        return Response(status=204)


def _caller(request: Request) -> Caller:
    if not settings.FAAS.tokens:
        raise NoTokens
    return caller_of(request._request)  # noqa: SLF001  # where the scope is


def _seen(caller: Caller) -> QuerySet[Token]:
    """What somebody may look at and revoke. Who shares a group shares no tokens: they let in as their user."""
    rows = Token.objects.filter(revoked_at=None).select_related("user")
    return rows if ADMIN in caller.scopes else rows.filter(user=caller.user)


def _found(caller: Caller, token_id: str) -> Token:
    number = parameters.integer(token_id)
    token = None if number is None else _seen(caller).filter(pk=number).first()
    if token is None:
        raise NotFound(f"there is no token {token_id[:64]!r}", field="token_id")
    return token


def _user(caller: Caller, name: str | None) -> Any:
    users = get_user_model().objects
    if name is None or name == caller.name:
        return users.get(pk=caller.user)
    if ADMIN not in caller.scopes:
        raise Forbidden("a token for somebody else is made by an administrator, with a token with the scope admin")
    user = users.filter(username=name).first()
    if user is None:
        raise InvalidRequest(f"there is no user {name[:64]!r}", field="user")
    return user


def _scopes(caller: Caller, wanted: set[str] | None) -> list[str]:
    has = frozenset(SCOPES) if ADMIN in caller.scopes else caller.scopes
    chosen = set(has & {READ, SUBMIT}) if wanted is None else set(wanted)
    if wider := chosen - has:
        raise Forbidden(f"what you came with has not the scope {min(wider)}, so it makes no token that has")
    return sorted(chosen, key=SCOPES.index)

"""What clients send to the views that Django REST framework runs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from everythingfaas.pythons import parse_minor


class TextField(serializers.CharField):
    """Text as it was sent. Unlike its base, it takes no number for text, and cuts nothing off."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, allow_blank=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class AsItIsField(serializers.Field[Any, Any, Any, Any]):
    """Whatever was sent, to be looked at by whoever it is for."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class RegisterSerializer(serializers.Serializer[Any]):
    """`POST /register_function`."""

    name = TextField()
    payload = TextField()
    policy = AsItIsField(required=False, allow_null=True, default=None)
    #: The version of Python that pickled it, if the client says so.
    python = TextField(required=False, allow_null=True)

    def validate_python(self, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_minor(value)
            except ValueError as exc:
                raise serializers.ValidationError(str(exc)) from None
        return value

"""What clients send to the views that Django REST framework runs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from everythingfaas.pythons import parse_minor

#: The longest text of a module.
MAX_SOURCE_CHARS = 1 << 20


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


class NewFunctionSerializer(RegisterSerializer):
    """`POST /api/v1/functions`: a payload; or the text of a module, and the name in it."""

    payload = TextField(required=False)
    source = TextField(required=False, max_length=MAX_SOURCE_CHARS)  # type: ignore[assignment]  # fields are no attributes
    entrypoint = TextField(required=False)
    #: If the very same is registered already, that is it.
    reuse = serializers.BooleanField(default=False)

    def validate_entrypoint(self, value: str) -> str:
        if not value.isidentifier():
            raise serializers.ValidationError("entrypoint must be the name of a function in the source")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("payload" in attrs) == ("source" in attrs):
            raise serializers.ValidationError({"payload": "send either a payload, or source and entrypoint"})
        if "source" in attrs and "entrypoint" not in attrs:
            raise serializers.ValidationError({"entrypoint": "say what the function is called in the source"})
        return attrs

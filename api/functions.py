"""Registering functions: rare enough for a thread and a transaction of its own."""

from __future__ import annotations

import time
from functools import cache
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connection, transaction

from api import moves
from api import policy as policies
from api.models import LOCAL_USER
from everythingfaas.pickles import read_function
from everythingfaas.pythons import origin_of, told
from everythingfaas.serialize import decode


def register(name: str, payload: str, policy: Any = None, python: str | None = None) -> UUID:
    """Stores the function in `payload` and returns its id. `policy` is what its tasks follow.

    Its tasks will run on `python` alone, the version that the client says it was pickled by. If it says nothing, on
    those that its code objects may come from, and anywhere if it has none.

    Raises:
        InvalidPayload: it is not base64 of a pickle that may hold a function.
        InvalidRequest: `policy` is none.
        ValueError: `python` is no version.
    """
    text = policies.changed(None, policy)
    raw = decode(payload)
    _, codes = read_function(raw)
    origin = origin_of(codes) if python is None else told(python)
    owner = local_owner()
    with transaction.atomic(), connection.cursor() as cursor:
        queue = moves.queue_for(cursor, origin.requirements)
        return moves.register(
            cursor, owner, name, raw, created=time.time(), queue=queue, pythons=origin.text, policy=text
        )


@cache
def local_owner() -> int:
    """Whose everything is while no tokens are asked for."""
    return get_user_model().objects.values_list("pk", flat=True).get(username=LOCAL_USER)

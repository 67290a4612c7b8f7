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
from everythingfaas.pickles import check_function
from everythingfaas.serialize import decode


def register(name: str, payload: str, policy: Any = None) -> UUID:
    """Stores the function in `payload` and returns its id. `policy` is what its tasks follow.

    Raises:
        InvalidPayload: it is not base64 of a pickle that may hold a function.
        InvalidRequest: `policy` is none.
    """
    text = policies.changed(None, policy)
    raw = decode(payload)
    check_function(raw)
    owner = local_owner()
    with transaction.atomic(), connection.cursor() as cursor:
        return moves.register(cursor, owner, name, raw, created=time.time(), policy=text)


@cache
def local_owner() -> int:
    """Whose everything is while no tokens are asked for."""
    return get_user_model().objects.values_list("pk", flat=True).get(username=LOCAL_USER)

"""Registering functions: rare enough for a thread and a transaction of its own."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from api import moves
from api import policy as policies
from api.access.caller import Caller
from api.access.quotas import check_stored, stored
from everythingfaas.pickles import read_function
from everythingfaas.pythons import origin_of, told
from everythingfaas.serialize import decode


def register(caller: Caller, name: str, payload: str, policy: Any = None, python: str | None = None) -> UUID:
    """Stores the function in `payload` for the caller and returns its id. `policy` is what its tasks follow.

    Its tasks will run on `python` alone, the version that the client says it was pickled by. If it says nothing, on
    those that its code objects may come from, and anywhere if it has none.

    Raises:
        InvalidPayload: it is not base64 of a pickle that may hold a function.
        InvalidRequest: `policy` is none.
        ValueError: `python` is no version.
        TooMany: the caller stores as much as they may.
    """
    text = policies.changed(None, policy)
    raw = decode(payload)
    _, codes = read_function(raw)
    origin = origin_of(codes) if python is None else told(python)
    with transaction.atomic(), connection.cursor() as cursor:
        if caller.limits.stored_bytes is not None:
            check_stored(caller, stored(cursor, caller.user) + len(raw))
        queue = moves.queue_for(cursor, origin.requirements)
        return moves.register(
            cursor, caller.user, name, raw, created=time.time(), queue=queue, pythons=origin.text, policy=text
        )

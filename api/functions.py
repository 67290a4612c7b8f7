"""Registering functions: rare enough for a thread and a transaction of its own."""

from __future__ import annotations

import hashlib
import time
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from api import moves
from api import policy as policies
from api.access.caller import Caller
from api.access.quotas import check_stored, stored
from api.dialect import dialect_of
from everythingfaas.pickles import read_function
from everythingfaas.pythons import origin_of, told
from everythingfaas.serialize import decode
from everythingfaas.slot import source


class Registered(NamedTuple):
    function: UUID
    is_new: bool


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
    return _store(caller, name, decode(payload), policy, python).function


def register_once(caller: Caller, name: str, payload: str, policy: Any = None, python: str | None = None) -> Registered:
    """As `register`; but if the caller has registered the very same before, that is it."""
    return _store(caller, name, decode(payload), policy, python, reuse=True)


def register_source(caller: Caller, name: str, text: str, entrypoint: str, policy: Any, *, reuse: bool) -> Registered:
    """Stores the text of a module, whose `entrypoint` is the function. It is not looked at here, and not compiled."""
    return _store(caller, name, source.dump(name, text, entrypoint), policy, None, text=text, reuse=reuse)


def _store(
    caller: Caller,
    name: str,
    raw: bytes,
    policy: Any,
    python: str | None,
    *,
    text: str | None = None,
    reuse: bool = False,
) -> Registered:
    said = policies.changed(None, policy)
    codes = [] if text is not None else read_function(raw)[1]
    origin = origin_of(codes) if python is None else told(python)
    with transaction.atomic(), connection.cursor() as cursor:
        if reuse and (known := _known(cursor, caller.user, name, raw, origin.text, said)) is not None:
            return Registered(known, is_new=False)
        if caller.limits.stored_bytes is not None:
            check_stored(caller, stored(cursor, caller.user) + len(raw))
        queue = moves.queue_for(cursor, origin.requirements)
        made = moves.register(
            cursor,
            caller.user,
            name,
            raw,
            created=time.time(),
            queue=queue,
            source=text,
            pythons=origin.text,
            policy=said,
        )
        return Registered(made, is_new=True)


def _known(cursor: CursorWrapper, owner: int, name: str, raw: bytes, pythons: str, policy: str | None) -> UUID | None:
    cursor.execute(
        "SELECT id FROM api_function WHERE owner_id = %s AND name = %s AND blob_id = %s AND pythons = %s"
        " AND coalesce(policy, '') = %s ORDER BY id DESC LIMIT 1",
        [owner, name, hashlib.sha256(raw).hexdigest(), pythons, policy or ""],
    )
    row = cursor.fetchone()
    return None if row is None else dialect_of(cursor).uuid(row[0])

"""Which Python a function was pickled by, and which may run it.

The code objects of one minor version crash the interpreter of another, and nothing in a pickle says which one wrote
it. Its instructions do: their numbers, the cache entries behind them, what their arguments may be and where their
jumps go differ from version to version. `origin_of` holds the code objects of a pickle against the tables in
`everythingfaas._opcodes`. Nothing is loaded.

    >>> origin_of([])
    Origin(has_code=False, minors=frozenset())

A function that is as short as ``lambda x: x + 1`` may look the same in two versions; then it also runs in both.

What follows from it is kept as text, the *requirements* of a queue: ``python=3.11`` or ``python=3.11,3.12``; nothing
where any Python will do; ``python=unknown`` where there is code that no table knows, which any worker may try. Whoever
does not understand a requirement must not run what has it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from everythingfaas._opcodes import TABLES
from everythingfaas.pickles import PickledCode

Minor = tuple[int, int]

#: The versions that can be told apart.
KNOWN: tuple[Minor, ...] = tuple(TABLES)
#: A worker needs this or a newer one.
OLDEST_WORKER: Minor = (3, 10)
#: Requirements of what runs anywhere.
ANY = ""
UNKNOWN = "unknown"

#: So many instructions are looked at in one pickle, for all versions together: some 50 ms.
MAX_STEPS = 200_000
#: One instruction for each variable that a function shares, and some few, stand at its beginning.
MAX_BEFORE_RESUME = 2_000
#: What beginning to look at a code object counts.
_STEPS_TO_BEGIN = 16

_KEY = "python="
_MINOR = re.compile(r"3\.(?:0|[1-9][0-9]?)")


class Origin(NamedTuple):
    """Where a function may come from."""

    has_code: bool  #: there are code objects in it; without any it runs anywhere
    minors: frozenset[Minor]  #: the versions that may have written them; none: no known one has

    @property
    def text(self) -> str:
        """As it is stored with the function: ``3.11,3.12``, ``unknown``, or nothing where any Python will do."""
        if not self.has_code:
            return ""
        return names(self.minors) or UNKNOWN

    @property
    def requirements(self) -> str:
        """Of the queue that its tasks stand in."""
        return f"{_KEY}{self.text}" if self.has_code else ANY


def origin_of(codes: Sequence[PickledCode | None]) -> Origin:
    """Where a function with these code objects (`everythingfaas.pickles.read_function`) may come from: the versions
    that each of them may come from."""
    minors = list(KNOWN)
    walk = _Walk(MAX_STEPS)
    for code in codes:
        if code is not None and not walk.is_tired:
            minors = [minor for minor in minors if walk.fits(code, minor)]
    # Nothing is known of a function that may come from every version.
    return Origin(bool(codes), frozenset(minors) if len(minors) < len(KNOWN) else frozenset())


def told(text: str) -> Origin:
    """What a client says: one version, as ``3.11``.

    Raises:
        ValueError: it is none.
    """
    return Origin(True, frozenset({parse_minor(text)}))


def parse_minor(text: str) -> Minor:
    """The version in ``3.11``. Raises ValueError."""
    if not _MINOR.fullmatch(text):
        raise ValueError(f"{text[:20]!r} is no version of Python such as 3.11")
    return 3, int(text[2:])


def names(minors: Iterable[Minor], separator: str = ",") -> str:
    """The versions as text, in order."""
    return separator.join(f"{major}.{minor}" for major, minor in sorted(minors))


@functools.lru_cache(maxsize=1024)
def allowed(requirements: str) -> frozenset[Minor] | None:
    """The versions that may run what has these requirements; None: all of them. No version may run what has a
    requirement that is not understood."""
    if requirements in (ANY, _KEY + UNKNOWN):
        return None
    if not requirements.startswith(_KEY):
        return frozenset()
    try:
        return frozenset(parse_minor(part) for part in requirements[len(_KEY) :].split(","))
    except ValueError:
        return frozenset()


def matches(requirements: str, python: Minor) -> bool:
    """Whether a worker of this version may run what has these requirements."""
    minors = allowed(requirements)
    return minors is None or python in minors


def is_certain(requirements: str) -> bool:
    """Whether what has these requirements is known to run on the versions that match: it holds no code, or of one
    version only. Otherwise it may crash the first time that a version runs it."""
    minors = allowed(requirements)
    return requirements == ANY if minors is None else len(minors) < 2


def mismatch(requirements: str, connected: Iterable[Minor]) -> str:
    """Why none of the connected workers can run what has these requirements, and what to do about it."""
    minors = allowed(requirements)
    if not minors:
        return f"no connected worker understands the requirements {requirements!r}: upgrade the dispatchers and workers"
    there = _either(connected)
    workers = [minor for minor in minors if minor >= OLDEST_WORKER]
    start = f"start a worker with Python {_either(workers)}, or " if workers else ""
    return (
        f"no connected worker can run it: the function was written by Python {_either(minors)}, and the connected"
        f" workers have {names(connected, ', ')}; {start}register the function again from Python {there}"
    )


def _either(minors: Iterable[Minor]) -> str:
    *others, last = names(minors).split(",")
    return f"{', '.join(others)} or {last}" if others else last


class _Table:
    """The instructions of one version, in the form in which they are looked up."""

    def __init__(self, minor: Minor, table: dict[str, Any]) -> None:
        self.minor = minor
        head = table["head"]
        self.resume = head.get("RESUME")
        self.before_resume = frozenset(head.values()) - {self.resume}
        self.is_complete = "kinds" in table
        self.kinds: str = table.get("kinds", "")
        self.caches = [int(digit, 16) for digit in table.get("caches", "").ljust(256, "0")]
        self.limits: dict[int, int] = table.get("limits", {})
        self.compares = frozenset(table.get("compares", ()))
        self.ends = frozenset(table.get("ends", ()))
        self.jump_unit: int = table.get("jump_unit", 2)
        # The number of a cache entry is 0, which is no instruction.
        self.bytes = bytes(op for op, kind in enumerate(self.kinds) if kind != " " or (op == 0 and self.resume))


_TABLES = {minor: _Table(minor, table) for minor, table in TABLES.items()}


class _Walk:
    """Holds code objects against tables, until it has done so many steps; what comes then fits everywhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def fits(self, code: PickledCode, minor: Minor) -> bool:
        """Whether `code` may have been written by this version."""
        table = _TABLES[minor]
        if code.has_qualname is not (minor >= (3, 11)) or (code.has_linetable and minor < (3, 10)):
            return False
        if code.code is None:
            return True
        instructions = len(code.code) // 2
        self._steps -= _STEPS_TO_BEGIN + min(instructions, MAX_BEFORE_RESUME)
        if len(code.code) % 2 or not instructions or not _begins_well(code.code, table):
            return False
        if not table.is_complete:
            return True
        if code.code[::2].translate(None, table.bytes):  # quick, whatever the size
            return False
        self._steps -= instructions
        return self.is_tired or _fits(code.code, code, table)

    @property
    def is_tired(self) -> bool:
        """It has done as many steps as it may."""
        return self._steps < 0


def _begins_well(instructions: bytes, table: _Table) -> bool:
    """Since 3.11 a function begins with RESUME, and few instructions may stand before it."""
    if table.resume is None:
        return True
    at = 0
    while at < 2 * MAX_BEFORE_RESUME and instructions[at : at + 1] and instructions[at] in table.before_resume:
        at += 2
    return instructions[at : at + 2] == bytes((table.resume, 0))


def _fits(instructions: bytes, code: PickledCode, table: _Table) -> bool:
    kinds, caches, unit = table.kinds, table.caches, table.jump_unit
    largest = _largest_arguments(code, table)
    size = len(instructions)
    starts: set[int] = set()
    targets: set[int] = set()
    at = begin = extended = op = 0
    while at < size:
        op, argument = instructions[at], instructions[at + 1]
        kind = kinds[op]
        at += 2
        if kind == "e":
            extended = (extended | argument) << 8
            if extended >> 32:
                return False
            continue
        argument |= extended
        if kind in largest and argument > largest[kind]:
            return False
        if caches[op]:
            behind = at + 2 * caches[op]
            if behind > size or any(instructions[at:behind]):
                return False
            at = behind
        if kind == "r":
            targets.add(at + argument * unit)
        elif kind == "b":
            targets.add(at - argument * unit)
        elif kind == "a":
            targets.add(argument * unit)
        elif kind == " " or argument > table.limits.get(op, argument):
            return False
        if kind == "C" and argument not in table.compares:
            return False
        if kind == "L" and max(argument >> 4, argument & 15) > largest["l"]:
            return False
        starts.add(begin)
        begin, extended = at, 0
    return op in table.ends and targets <= starts


def _largest_arguments(code: PickledCode, table: _Table) -> dict[str, int]:
    """By the kind of instruction."""
    every = code.variables + code.cells
    is_one_list = table.minor >= (3, 11)  # variables of all kinds, counted through
    return {
        ".": 0,
        "c": code.constants - 1,
        "n": code.names - 1,
        "N": 2 * code.names - 1,
        "S": 4 * code.names - 1,
        "l": every - 1 if is_one_list else code.variables - 1,
        "f": every - 1 if is_one_list else code.cells - 1,
    }

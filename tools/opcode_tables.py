"""Writes everythingfaas/_opcodes.py: what the instructions of each Python's code objects look like.

    python tools/opcode_tables.py python3.8 python3.9 python3.10 python3.11 python3.12 python3.13

Each interpreter is asked for its own numbers; the tables of those that are not named are kept. A new minor version
needs its interpreter here once. Until then it has an entry in `HEADS`, which tells it from the others all the same.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "everythingfaas" / "_opcodes.py"

#: Versions of which only the instructions are known that a code object begins with.
HEADS = {
    (3, 14): {
        "RESUME": 128,
        "COPY_FREE_VARS": 60,
        "MAKE_CELL": 97,
        "RETURN_GENERATOR": 34,
        "POP_TOP": 31,
        "EXTENDED_ARG": 69,
    }
}

#: Runs in each interpreter, and must therefore be read by all of them.
PROBE = r"""
import dis, json, opcode, sys

minor = sys.version_info[:2]
absent = ("CACHE", "RESERVED", "INTERPRETER_EXIT", "ENTER_EXECUTOR", "<")
shifted = {"LOAD_GLOBAL": 1} if minor >= (3, 11) else {}
if minor >= (3, 12):
    shifted.update(LOAD_ATTR=1, LOAD_SUPER_ATTR=2)
ops = {
    name: op
    for name, op in dis.opmap.items()
    if op < 256 and not name.startswith(("INSTRUMENTED_",) + absent)
}

def takes_argument(op):
    return op in dis.hasarg if hasattr(dis, "hasarg") else op >= dis.HAVE_ARGUMENT

def kind(name, op):
    if name == "EXTENDED_ARG":
        return "e"
    if not takes_argument(op):
        return "." if minor not in ((3, 10), (3, 11)) else "o"  # whose optimizer leaves old arguments behind
    if op in dis.hasconst:
        return "c"
    if op in dis.hasname:
        return "nNS"[shifted.get(name, 0)]
    if name.count("_FAST") == 2:
        return "L"
    if op in dis.hasjabs:
        return "a"
    if op in dis.hasjrel:
        return "b" if "BACKWARD" in name else "r"
    if op in dis.haslocal:
        return "l"
    if op in dis.hasfree:
        return "f"
    if name == "COMPARE_OP":
        return "C"
    return "o"

entries = getattr(opcode, "_inline_cache_entries", [])
caches = {}
for name, op in ops.items():
    caches[op] = entries.get(name, 0) if isinstance(entries, dict) else entries[op] if entries else 0

compares = set()
for sign in ("<", "<=", "==", "!=", ">", ">="):
    for text in ("lambda a, b: a %s b", "lambda a, b: 1 if a %s b else 2"):
        code = compile(text % sign, "", "eval").co_consts[0]
        compares.update(i.arg for i in dis.get_instructions(code) if i.opname == "COMPARE_OP")
if minor < (3, 9):
    compares.update(range(len(dis.cmp_op) - 1))  # in, not in, is, is not, exception match

limits = {"RAISE_VARARGS": 2, "IS_OP": 1, "CONTAINS_OP": 1, "FORMAT_VALUE": 7, "GEN_START": 2, "BUILD_SLICE": 3}
limits.update(MAKE_FUNCTION=15, GET_AWAITABLE=2, RERAISE=2, RESUME=7 if minor >= (3, 13) else 3)
if hasattr(opcode, "_nb_ops"):
    limits["BINARY_OP"] = len(opcode._nb_ops) - 1
for n in (1, 2):
    known = getattr(opcode, "_intrinsic_%d_descs" % n, None)
    if known:
        limits["CALL_INTRINSIC_%d" % n] = len(known) - 1

ends = {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"}
ends |= {"JUMP_ABSOLUTE", "JUMP_FORWARD", "END_FINALLY"}
head = ("RESUME", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP", "EXTENDED_ARG")
print(json.dumps({
    "kinds": "".join({op: kind(name, op) for name, op in ops.items()}.get(op, " ") for op in range(256)),
    "caches": "".join("0123456789abcdef"[caches.get(op, 0)] for op in range(256)).rstrip("0"),
    "compares": sorted(compares),
    "limits": {ops[name]: limit for name, limit in limits.items() if name in ops},
    "ends": sorted(ops[name] for name in ends if name in ops),
    "head": {name: ops[name] for name in head} if minor >= (3, 11) else {},
    "jump_unit": 1 if minor < (3, 10) else 2,
    "minor": list(minor),
}))
"""

HEADER = '''"""What the instructions of each Python's code objects look like. Made by tools/opcode_tables.py: edit that.

`kinds` has a letter for each opcode, which says what its argument is:

    blank  no instruction        .  no argument         e  EXTENDED_ARG             o  anything
    c      constant              n  name                N  name, times 2            S  name, times 4
    l      local variable        L  two of them         f  variable of a closure    C  comparison
    r      jump forward          b  jump backward       a  jump

`caches` has the number of cache entries behind each, as a hexadecimal digit; `head` the instructions that a code
object of 3.11 and newer begins with; in `jump_unit` bytes a jump counts; `limits` are the largest arguments;
`compares` those of comparisons; and one of `ends` stands at the end.
"""

from __future__ import annotations

from typing import Any

TABLES: dict[tuple[int, int], dict[str, Any]] = '''


def main(pythons: list[str]) -> None:
    tables = _known()
    for python in pythons:
        probed = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True)
        table = json.loads(probed.stdout)
        table["limits"] = {int(op): limit for op, limit in table["limits"].items()}
        tables[tuple(table.pop("minor"))] = table
    for minor, head in HEADS.items():
        tables.setdefault(minor, {"head": head})
    lines = [f"    {minor}: {_written(table)},\n" for minor, table in sorted(tables.items())]
    TARGET.write_text(f"{HEADER}{{\n{''.join(lines)}}}\n")


def _known() -> dict[tuple[int, int], dict[str, Any]]:
    if not TARGET.exists():
        return {}
    (value,) = (node.value for node in ast.parse(TARGET.read_text()).body if isinstance(node, ast.AnnAssign))
    known: dict[tuple[int, int], dict[str, Any]] = ast.literal_eval(value)  # type: ignore[arg-type]  # TABLES has one
    return known


def _written(table: dict[str, Any]) -> str:
    """As a literal whose lines are short enough."""
    lines = []
    for key, value in sorted(table.items()):
        if isinstance(value, str) and len(value) > 64:
            parts = "".join(f'            "{value[i : i + 64]}"\n' for i in range(0, len(value), 64))
            lines.append(f'        "{key}": (\n{parts}        ),\n')
        else:
            lines.append(f'        "{key}": {json.dumps(value) if not isinstance(value, dict) else _dict(value)},\n')
    return f"{{\n{''.join(lines)}    }}"


def _dict(value: dict[Any, int]) -> str:
    return "{" + ", ".join(f"{key if isinstance(key, int) else json.dumps(key)}: {n}" for key, n in value.items()) + "}"


if __name__ == "__main__":
    main(sys.argv[1:])

"""Functions of all kinds, and the pickles of them that each Python makes: `functions.tar.xz`.

    python tests/data/functions.py 3.10/bin/python 3.11/bin/python …      # each with dill and cloudpickle

Called with a folder instead, it writes the pickles of the Python that runs it there.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

#: Name, function, arguments and what it returns; None: whatever it may be.
CASES: list[tuple[str, Any, tuple[Any, ...], Any]] = []


def case(*args: Any, returns: Any) -> Any:
    def add(function: Any) -> Any:
        CASES.append((function.__name__, function, args, returns))
        return function

    return add


CASES += [
    ("lambda_", lambda x: x + 1, (1,), 2),
    ("lambda_constant", lambda: 42, (), 42),
    ("lambda_defaults", lambda x, *rest, y=3, **more: (x, rest, y, more), (1, 2), (1, (2,), 3, {})),
    ("lambda_compare", lambda a, b: a < b <= 10 or a == b, (1, 2), True),
    ("lambda_call", lambda text: text.strip().upper().split(","), (" a,b ",), ["A", "B"]),
    ("lambda_index", lambda items: items[0] * items[-1] - items[1:2][0], ([3, 4, 5],), 11),
]


def _closure(n: int) -> Any:
    return lambda x: x * n


CASES.append(("closure", _closure(3), (2,), 6))


@case(4, returns=14)
def nested(n: int) -> int:
    total = 0

    def add(x: int) -> None:
        nonlocal total
        total += x * x

    def walk(upto: int) -> None:
        for i in range(upto):
            add(i)

    walk(n)
    return total


@case(3, returns=None)
class Doubler:
    """Calling it makes one."""

    factor = 2

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return self.scaled(x) + self.n

    def scaled(self, x: int) -> int:
        return self.factor * x

    @property
    def size(self) -> int:
        return self.n

    @staticmethod
    def helper(*args: int) -> int:
        return sum(args)


CASES.append(("method", Doubler(1).scaled, (4,), 8))
CASES.append(("instance", Doubler(1), (4,), 9))
CASES.append(("partial", functools.partial(lambda a, b, c=0: a - b + c, 10, c=5), (1,), 14))


@case(5, returns=[0, 1, 4, 9, 16])
def generator(n: int) -> list[int]:
    def squares():  # type: ignore[no-untyped-def]
        for i in range(n):
            sent = yield i * i
            if sent:
                return
        yield from ()

    return list(squares())


@case(3, returns=[0, 2, 4])
def coroutine(n: int) -> list[int]:
    import asyncio

    class Turn:
        async def __aenter__(self):  # type: ignore[no-untyped-def]
            return self

        async def __aexit__(self, *args):  # type: ignore[no-untyped-def]
            return False

    async def count():  # type: ignore[no-untyped-def]
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def main() -> list[int]:
        async with Turn():
            return [2 * i async for i in count()]

    return asyncio.run(main())


def _announced(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ("called", function(*args, **kwargs))

    return wrapper


CASES.append(("decorated", _announced(lambda x, y: x**y), (2, 3), ("called", 8)))


@case(5, returns=120)
def recursion(n: int) -> int:
    def factorial(k: int) -> int:
        return 1 if k < 2 else k * factorial(k - 1)

    return factorial(n)


@case([3, 1, 2], returns=([1, 9, 4], {1: "1", 2: "2", 3: "3"}, 3, 6))
def comprehension(items: list[int]) -> Any:
    doubled = sorted(x * x for x in items if x)
    return [doubled[0], doubled[-1], doubled[1]], {x: str(x) for x in items}, len({x % 7 for x in items}), sum(items)


@case("x", returns=["ValueError", "else", "finally", "finally"])
def try_except(text: str) -> list[str]:
    said = []
    for source in (text, "1"):
        try:
            int(source)
        except (ValueError, TypeError) as exc:
            said.append(type(exc).__name__)
        else:
            said.append("else")
        finally:
            said.append("finally")
    said.sort(key=lambda word: {"ValueError": 0, "else": 1}.get(word, 2))
    return said


@case("abc", returns=("abc", True))
def with_(text: str) -> Any:
    import contextlib
    import io

    with io.StringIO(text) as file, contextlib.suppress(KeyError):
        read = file.read()
        {}["nothing"]
    return read, file.closed


@case({"kind": "pair", "items": [1, 2]}, returns=3)
def match_(value: Any) -> Any:
    match value:
        case {"kind": "pair", "items": [int(a), int(b)]}:
            return a + b
        case [first, *rest] if rest:
            return first
        case str() | bytes() as text:
            return len(text)
        case _:
            return None


@case(3.14159, "pi", returns="pi is 3.14,  'pi', and 3.14159=0")
def f_string(x: float, name: str) -> str:
    return f"{name} is {x:.2f}, {name!r:>5}, and {x}={0:d}"


@case(30, returns=832040)
def loop(n: int) -> int:
    a, b = 0, 1
    while n > 0:
        a, b, n = b, a + b, n - 1
        if a < 0:
            break
        if not b:
            continue
    assert a, "never"
    return a


@case([1, 2, 3, 4], returns=(1, [2, 3], 4, True, False, [4, 3, 2, 1]))
def unpacking(items: list[int]) -> Any:
    first, *middle, last = items
    merged = {**{"a": 1}, "b": 2}
    joined = [*items, *middle]
    del merged["a"]
    return first, middle, last, 2 in joined, "a" in merged, items[::-1]


@case(2, returns="done")
def walrus_and_globals(n: int) -> str:
    import math as numbers
    from os.path import join

    if (root := numbers.floor(numbers.sqrt(n))) is not None and root and join("a", "b"):
        return "done"
    return "never"


def _large() -> Any:
    """So many constants and lines that arguments and jumps need a second byte."""
    source = "def f(x):\n" + "".join(f"    if x == {n + 1000}: x += {n + 5000}\n" for n in range(300)) + "    return x"
    names: dict[str, Any] = {}
    exec(source, names)
    return names["f"]


CASES.append(("second_byte", _large(), (7,), 7))


def write(folder: Path) -> None:
    """The pickles of this Python, by pickler and name."""
    import cloudpickle
    import dill

    picklers = {
        "dill": lambda function: dill.dumps(function, recurse=False),
        "dill-recurse": lambda function: dill.dumps(function, recurse=True),
        "cloudpickle": cloudpickle.dumps,
    }
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for pickler, dump in picklers.items():
        for name, function, _, _ in CASES:
            path = folder / version / pickler / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dump(function))


def main(pythons: list[str]) -> None:
    this = Path(__file__)
    with tempfile.TemporaryDirectory() as folder:
        for python in pythons:
            # From standard input, so that no path of this machine gets into the pickles.
            subprocess.run([python, "-", folder], input=this.read_bytes(), check=True)
        with tarfile.open(this.with_suffix(".tar.xz"), "w:xz") as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    member = tarfile.TarInfo(str(path.relative_to(folder)))
                    member.size = path.stat().st_size
                    with path.open("rb") as file:
                        archive.addfile(member, file)


if __name__ == "__main__":
    if Path(sys.argv[1]).is_dir():
        write(Path(sys.argv[1]))
    else:
        main(sys.argv[1:])

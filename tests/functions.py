"""The functions in `tests/data/functions.tar.xz`, as each Python has pickled them."""

from __future__ import annotations

import functools
import tarfile
from dataclasses import dataclass
from pathlib import Path

from everythingfaas.pickles import read_function
from everythingfaas.pythons import Minor, Origin, origin_of, parse_minor

ARCHIVE = Path(__file__).parent / "data" / "functions.tar.xz"


@dataclass(frozen=True)
class Pickled:
    python: Minor  #: that pickled it
    pickler: str
    name: str
    raw: bytes

    @property
    def path(self) -> str:
        return "{}.{}/{}/{}".format(*self.python, self.pickler, self.name)

    @functools.cached_property
    def origin(self) -> Origin:
        return origin_of(read_function(self.raw)[1])


@functools.cache
def pickled() -> list[Pickled]:
    found = []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            python, pickler, name = member.name.split("/")
            file = archive.extractfile(member)
            assert file is not None
            found.append(Pickled(parse_minor(python), pickler, name, file.read()))
    return found

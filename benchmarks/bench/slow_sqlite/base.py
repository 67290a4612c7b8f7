"""Each commit takes BENCH_COMMIT_MS longer, as a disk makes it: nobody else can write meanwhile."""

from __future__ import annotations

import os
import time

from faas_project.sqlite import base

DELAY_S = float(os.environ.get("BENCH_COMMIT_MS", "0")) / 1000


class DatabaseWrapper(base.DatabaseWrapper):
    def _commit(self) -> None:
        time.sleep(DELAY_S)
        super()._commit()

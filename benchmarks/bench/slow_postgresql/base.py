"""Each commit takes BENCH_COMMIT_MS longer, with the locks of its rows held, as a disk makes it."""

from __future__ import annotations

import os
import time

from django.db.backends.postgresql import base

DELAY_S = float(os.environ.get("BENCH_COMMIT_MS", "0")) / 1000


class DatabaseWrapper(base.DatabaseWrapper):
    def _commit(self) -> None:
        time.sleep(DELAY_S)
        super()._commit()  # type: ignore[misc]  # the stubs do not know it

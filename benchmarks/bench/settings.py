"""The product's settings with two changes: an empty view among its URLs and, if asked for, a slow disk.

BENCH_COMMIT_MS: milliseconds that are added to each commit, while it holds its locks.
"""

from __future__ import annotations

import os

from faas_project.settings import *  # noqa: F403
from faas_project.settings import DATABASES

ROOT_URLCONF = "bench.urls"

_SLOW = {
    "faas_project.sqlite": "bench.slow_sqlite",
    "django.db.backends.postgresql": "bench.slow_postgresql",
}
if float(os.environ.get("BENCH_COMMIT_MS", "0")) > 0:
    DATABASES["default"]["ENGINE"] = _SLOW[str(DATABASES["default"]["ENGINE"])]

#!/usr/bin/env python
"""How many tasks are accepted, each committed before it is answered: python benchmarks/submit.py

For 1, 16 and 256 keep-alive connections, `POST /execute_function` and an empty lean view take turns on one web
process, round by round, with the same body. The web is the real `faas_project.serve`, with Redis beside it and a
dispatcher that runs the tasks as they come. What counts is the ratio of the two: it stays when the machine changes.

On SQLite (synchronous=FULL) and on PostgreSQL, where that is installed; and each again with 5 ms more for every
commit, as a slow disk has it (a database backend in `bench/slow_*` that sleeps before COMMIT, with its locks held).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import load, postgresql, proc, stack
from bench.client import Client
from bench.functions import call, no_op
from bench.report import machine, progress, save, table, warn_if_busy
from bench.stats import median_of, spread

DATABASES = ("sqlite", "postgresql")
#: How long what was submitted may take to be run, before the next measurement.
DRAIN_S = 300.0

Row = dict[str, Any]


def main() -> None:
    options = _options()
    warn_if_busy()
    about = {**machine(options.folder), "load generator": load.generator()}
    out: dict[str, Any] = {"benchmark": "submit", "options": vars(options), "machine": about, "rows": []}
    print(table("Machine", [about]))
    if load.generator() != "wrk":
        progress("wrk is not installed (apt-get install wrk): the load comes from Python, which takes its share")
    for database in options.databases:
        if database == "postgresql" and postgresql.programs() is None:
            progress(postgresql.NOT_INSTALLED)
            continue
        for commit_ms in options.commit_ms:
            out["rows"] += measure(options, database, commit_ms)
    print(table("Committed POST /execute_function, next to an empty lean view in the same process", out["rows"]))
    save(options.json, out)


def measure(options: argparse.Namespace, database: str, commit_ms: float) -> list[Row]:
    """A row for each number of connections."""
    with ExitStack() as stacked:
        url = stacked.enter_context(postgresql.cluster(options.folder)).url if database == "postgresql" else ""
        live = stacked.enter_context(
            stack.running(workers=options.workers, database_url=url, commit_ms=commit_ms, folder=options.folder)
        )
        body = asyncio.run(_prepare(live.url))
        for path in ("/empty", "/execute_function"):  # warm up, and let the first pages of the database be written
            load.post(live.url, path, body, connections=16, seconds=1.0)
        asyncio.run(_drain(live.url, body))
        return [_compare(options, live, body, database, commit_ms, number) for number in options.connections]


def _compare(
    options: argparse.Namespace, live: stack.Stack, body: bytes, database: str, commit_ms: float, connections: int
) -> Row:
    empty: list[dict[str, float]] = []
    execute: list[dict[str, float]] = []
    progress(f"{database}, {commit_ms:g} ms more a commit, {connections} connections")
    for _ in range(options.rounds):
        empty.append(_load(live, "/empty", body, connections, options.seconds))
        execute.append(_load(live, "/execute_function", body, connections, options.seconds))
        asyncio.run(_drain(live.url, body))
    bare, full = median_of(empty), median_of(execute)
    # Of neighbours in time, for the machine drifts.
    ratios = [after["per_s"] / before["per_s"] for before, after in zip(empty, execute, strict=True)]
    return {
        "database": database,
        "commit + ms": commit_ms,
        "connections": connections,
        "requests/s": round(full["per_s"]),
        "range": spread(execute, "per_s"),
        "p50_ms": round(full["p50_ms"], 2),
        "p99_ms": round(full["p99_ms"], 1),
        "empty/s": round(bare["per_s"]),
        "ratio": round(statistics.median(ratios), 3),
        "web cores": round(full["web_cores"], 2),
        "dispatcher cores": round(full["dispatcher_cores"], 2),
        "others cores": round(full["other_cores"], 2),
        "strangers": round(max(full["strangers"], bare["strangers"]), 2),
        "errors": int(full["errors"]),
    }


def _load(live: stack.Stack, path: str, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    """One measurement, with the cores that each part of the product has used meanwhile."""
    before, busy, strangers = proc.cpu_of_tree(os.getpid()), {}, proc.Strangers()
    found = load.post(live.url, path, body, connections=connections, seconds=seconds)
    strange = strangers.cores()
    for pid, cpu_s in proc.cpu_of_tree(os.getpid()).items():
        busy[pid] = (cpu_s - before.get(pid, 0.0)) / found["seconds"]
    web, dispatcher = busy.pop(live.web, 0.0), busy.pop(live.dispatcher, 0.0)
    busy.pop(os.getpid(), None)
    return {
        "per_s": round((found["requests"] - found["refused"]) / found["seconds"], 1),
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "errors": found["refused"] + found["lost"],
        "web_cores": web,
        "dispatcher_cores": dispatcher,
        "strangers": strange,
        "other_cores": sum(busy.values()),  # slots, Redis, PostgreSQL; wrk has ended by now and is not seen
    }


async def _prepare(url: str) -> bytes:
    client = Client(url)
    body = call(await client.register(no_op()))
    status = await client.waited(await client.submit(body))
    client.close()
    if status != "COMPLETED":
        raise RuntimeError(f"the first task ended {status}")
    return body


async def _drain(url: str, body: bytes) -> None:
    """Until the dispatcher has nothing left to do: tasks are claimed in order, so one more is the last."""
    client = Client(url)
    async with asyncio.timeout(DRAIN_S):
        await client.waited(await client.submit(body))
    await asyncio.sleep(0.3)
    client.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=_numbers, default=[1, 16, 256], help="e.g. 16 or 1,16,256")
    parser.add_argument("--databases", type=_databases, default=list(DATABASES), help="some of sqlite,postgresql")
    parser.add_argument("--commit-ms", type=_delays, default=[0.0, 5.0], help="ms added to each commit: 0,5")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where data folders are made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _delays(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _databases(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(DATABASES):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(DATABASES)}")
    return names


if __name__ == "__main__":
    main()

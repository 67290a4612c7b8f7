#!/usr/bin/env python
"""How fast workers empty a queue that has filled up before they came: python benchmarks/drain.py

Tasks (no-ops) are submitted while no worker is connected; then one worker with --slots slots is started. Measured
from the first begin to the last end, both as the database has them, and from the start of the worker's process.
`…_us` is what the parts have used of a core for each task; that of workers and slots includes their start.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

from bench import proc, stack
from bench.client import Client
from bench.functions import call, no_op
from bench.report import machine, progress, save, table, warn_if_busy
from bench.stats import median_of, spread

from everythingfaas.status import State

CONNECTIONS = 16
#: How long the queue may take to get empty.
DRAIN_S = 120.0


async def fill(url: str, n: int) -> None:
    client = Client(url)
    body = call(await client.register(no_op()))
    left = iter(range(n))

    async def submitter() -> None:
        for _ in left:
            await client.submit(body)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(submitter())
    client.close()


def drained(database: sqlite3.Connection, n: int) -> tuple[float, float]:
    """When the first task began and the last one ended, by the clock of the processes."""
    patience = time.monotonic() + DRAIN_S
    while (done := _completed(database)) < n:
        if time.monotonic() > patience:
            raise RuntimeError(f"only {done} of {n} tasks have completed within {DRAIN_S:g} s")
        time.sleep(0.02)
    first, last = database.execute("SELECT min(started), max(finished) FROM api_task").fetchone()
    return float(first), float(last)


def _completed(database: sqlite3.Connection) -> int:
    """From the few rows that pages are shown: looking through the tasks would take its share of the machine."""
    query = "SELECT coalesce(sum(count), 0) FROM api_counter WHERE state = ?"
    return int(database.execute(query, [State.COMPLETED.value]).fetchone()[0])


def one_round(mode: str, n: int, slots: int, folder: Path | None) -> dict[str, float]:
    with stack.running(mode=mode, workers=slots, folder=folder) as live:
        asyncio.run(fill(live.url, n))
        database = sqlite3.connect(f"file:{live.data_dir / 'db.sqlite3'}?mode=ro", uri=True)
        parts = {"dispatcher": live.dispatcher, "redis": live.redis}
        before = {name: proc.cpu_s(pid) for name, pid in parts.items()}
        started = time.time()
        with live.worker(slots) as worker:
            first, last = drained(database, n)
            used = {f"{name}_us": proc.cpu_s(pid) - before[name] for name, pid in parts.items()}
            below = proc.cpu_of_tree(worker)
            used["worker_us"] = below.pop(worker)
            used["slots_us"] = sum(below.values())
        database.close()
    per_task = {name: round(cpu_s / n * 1e6, 1) for name, cpu_s in used.items()}
    return {"tasks_per_s": round(n / (last - first), 1), "with_start_per_s": round(n / (last - started), 1), **per_task}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", default="push,pull")
    parser.add_argument("-n", type=int, default=5000, help="how many tasks")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where data folders are made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    warn_if_busy()
    rows: list[dict[str, Any]] = []
    for mode in options.modes.split(","):
        progress(f"drain, {mode}")
        rounds = [one_round(mode, options.n, options.slots, options.folder) for _ in range(options.rounds)]
        title = f"{options.n} no-ops, {options.slots} slots"
        rows.append({title: mode, **median_of(rounds), "range": spread(rounds, "tasks_per_s")})
    out: dict[str, Any] = {
        "benchmark": "drain",
        "options": vars(options),
        "machine": machine(options.folder),
        "drain": rows,
    }
    print(table("Machine", [out["machine"]]))
    print(table("Drain", rows))
    save(options.json, out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""What the client library makes of it: python benchmarks/executor.py

    map         no-ops by `Executor.map`, from the first call to the last result in hand, every task committed
    large       one call with an argument and a result of --megabytes
    memory      how much this process grows over the second half of a `map` over many items

The appliance has two slots, in push mode unless told otherwise. `…_us` is what the parts use of a core for each task;
`client_us` that of this process, which shares the two cores with them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import appliance, proc
from bench.report import machine, progress, save, table, warn_if_busy
from bench.stats import median_of, spread

from everythingfaas.client import Client, Executor


def no_op(item: Any) -> Any:
    return item


def mapped(url: str, n: int) -> float:
    """Seconds."""
    with Executor(url) as executor:
        began = time.perf_counter()
        count = sum(1 for _ in executor.map(no_op, range(n)))
        elapsed_s = time.perf_counter() - began
    if count != n:
        raise RuntimeError(f"{count} results of {n} calls")
    return elapsed_s


def map_round(live: appliance.Appliance, n: int) -> dict[str, float]:
    before = proc.cpu_of_tree(live.pid)
    mine = time.process_time()
    elapsed_s = mapped(live.url, n)
    used_s = sum(proc.cpu_of_tree(live.pid).values()) - sum(before.values())
    return {
        "tasks_per_s": round(n / elapsed_s, 1),
        "appliance_us": round(used_s / n * 1e6, 1),
        "client_us": round((time.process_time() - mine) / n * 1e6, 1),
    }


def large_round(url: str, size: int) -> dict[str, float]:
    with Client(url) as client:
        argument = os.urandom(size)
        client.result(client.submit(no_op, b""), timeout=60)
        began = time.perf_counter()
        if client.result(client.submit(no_op, argument), timeout=60) != argument:
            raise RuntimeError("what came back is not what was sent")
        return {"seconds": round(time.perf_counter() - began, 3)}


def memory(url: str, n: int) -> dict[str, float]:
    """How much this process grows, in MiB, between the middle and the end."""
    with Executor(url) as executor:
        values = executor.map(no_op, _items(n), chunksize=100)
        _skip(values, n // 2)
        middle = _rss_mb()
        began = time.perf_counter()
        _skip(values, n)
        elapsed_s = time.perf_counter() - began
    return {"items": n, "growth_MB": round(_rss_mb() - middle, 1), "items_per_s": round(n / 2 / elapsed_s)}


def _items(n: int) -> Iterator[int]:
    yield from range(n)  # of unknown length, as a generator is


def _skip(values: Iterator[Any], n: int) -> None:
    for _ in itertools.islice(values, n):
        continue


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="push", help="local, pull or push")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("-n", type=int, default=10_000, help="how many no-ops")
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--items", type=int, default=200_000, help="of the phase memory; 0: leave it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where data folders are made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    warn_if_busy()
    out: dict[str, Any] = {"benchmark": "executor", "options": vars(options), "machine": machine(options.folder)}
    with appliance.running("--mode", options.mode, workers=options.slots, folder=options.folder) as live:
        mapped(live.url, 500)
        progress("map")
        rounds = [map_round(live, options.n) for _ in range(options.rounds)]
        row = {f"{options.n} no-ops": options.mode, **median_of(rounds), "range": spread(rounds, "tasks_per_s")}
        out["map"] = [row]
        progress("large")
        larges = [large_round(live.url, options.megabytes * 1024**2) for _ in range(options.rounds)]
        out["large"] = [{"MiB": options.megabytes, **median_of(larges), "range": spread(larges, "seconds")}]
        if options.items:
            progress("memory")
            out["memory"] = [memory(live.url, options.items)]
    for name in ("machine", "map", "large", "memory"):
        if name in out:
            print(table(name.capitalize(), out[name] if isinstance(out[name], list) else [out[name]]))
    save(options.json, out)


if __name__ == "__main__":
    main()

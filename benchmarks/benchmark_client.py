#!/usr/bin/env python
"""The two scenarios of the original system's report: python benchmarks/benchmark_client.py --type latency|throughput

    latency     no-ops one after the other, from the submit to the result in hand (it waits with ?wait=)
    throughput  20 x sleep(0.5) and 500 no-ops at once, from the first submit to the last result

Against the service at --url, which runs already (`make up`); whatever its mode and workers are.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from bench.client import Client
from bench.functions import call, no_op, sleeper
from bench.report import table
from bench.stats import latencies

CONNECTIONS = 16


async def latency(client: Client, n: int) -> list[dict[str, Any]]:
    body = call(await client.register(no_op()))
    times = []
    for number in range(n + 5):
        began = time.perf_counter()
        await _completed(client, body)
        if number >= 5:  # the first ones warm up
            times.append(time.perf_counter() - began)
    average = round(1000 * sum(times) / n, 2)
    return [{"no-ops": n, "average_ms": average, "min_ms": round(1000 * min(times), 2), **latencies(times)}]


async def throughput(client: Client, n: int) -> list[dict[str, Any]]:
    return [
        await _batch(client, "sleep(0.5)", sleeper(), 0.5, n=20),
        await _batch(client, "no-op", no_op(), n=n),
    ]


async def _batch(client: Client, name: str, function: Callable[..., Any], *args: Any, n: int) -> dict[str, Any]:
    body = call(await client.register(function), *args)
    left = iter(range(n))

    async def one_after_the_other() -> None:
        for _ in left:
            await _completed(client, body)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(n, 4 * CONNECTIONS)):
            group.create_task(one_after_the_other())
    total_s = time.perf_counter() - began
    return {"tasks": f"{n} x {name}", "total_s": round(total_s, 3), "tasks_per_s": round(n / total_s, 1)}


async def _completed(client: Client, body: bytes) -> None:
    status = await client.waited(await client.submit(body))
    if status != "COMPLETED":
        raise RuntimeError(f"a task ended {status}")


async def _main(options: argparse.Namespace) -> None:
    client = Client(options.url.rstrip("/"))
    phase = latency if options.type == "latency" else throughput
    rows = await phase(client, options.n or {"latency": 200, "throughput": 500}[options.type])
    print(table(options.type.capitalize(), rows))
    client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", choices=["latency", "throughput"], required=True)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("-n", type=int, help="how many no-ops (200 for latency, 500 for throughput)")
    asyncio.run(_main(parser.parse_args()))

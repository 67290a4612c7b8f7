#!/usr/bin/env python
"""What a token costs on the way of a task: python benchmarks/tokens.py

Two stacks side by side on the same machine, one that asks for no token and one that does, take turns round by round at
`POST /execute_function`, `GET /status/{id}` and `GET /result/{id}`. What counts is the ratio of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from bench import load, stack
from bench.client import Client
from bench.functions import call, no_op
from bench.report import machine, progress, save, table, warn_if_busy


@dataclass(frozen=True)
class Side:
    url: str
    token: str
    web: int  #: its process

    def cpu_s(self) -> float:
        """What the web process has used so far."""
        times = psutil.Process(self.web).cpu_times()
        return float(times.user + times.system)


def main() -> None:
    options = _options()
    warn_if_busy()
    with (
        stack.running(workers=1, folder=options.folder) as bare,
        stack.running(workers=1, folder=options.folder, auth="token") as closed,
    ):
        token = _token(closed)
        bodies = {url: asyncio.run(_prepare(url, header)) for url, header in ((bare.url, ""), (closed.url, token))}
        without, with_one = Side(bare.url, "", bare.web), Side(closed.url, token, closed.web)
        rows = [_compare(options, connections, without, with_one, bodies) for connections in options.connections]
        rows += [_lookups_of(what, options, without, with_one, bodies) for what in ("status", "result")]
    print(table("Committed submits, and lookups of a status and a result, without and with a token", rows))
    save(options.json, {"benchmark": "tokens", "machine": machine(options.folder), "rows": rows})


def _compare(
    options: argparse.Namespace,
    connections: int,
    bare: Side,
    closed: Side,
    bodies: dict[str, bytes],
) -> dict[str, Any]:
    progress(f"{connections} connections")
    found: dict[str, list[float]] = {bare.url: [], closed.url: []}
    cpu: dict[str, list[float]] = {bare.url: [], closed.url: []}
    for number in range(options.rounds):
        for side in (bare, closed) if number % 2 else (closed, bare):
            url, token, busy = side.url, side.token, side.cpu_s()
            took = load.post(
                url, "/execute_function", bodies[url], connections=connections, seconds=options.seconds, token=token
            )
            if took["refused"] or took["lost"]:
                raise RuntimeError(f"{took['refused']:.0f} were refused, {took['lost']:.0f} lost")
            cpu[url].append((side.cpu_s() - busy) / took["requests"])
            found[url].append(took["requests"] / took["seconds"])
            asyncio.run(_drain(url, token, bodies[url]))
    return _row(f"submit, {connections} connections", bare, closed, found, cpu)


def _lookups_of(
    what: str, options: argparse.Namespace, bare: Side, closed: Side, bodies: dict[str, bytes]
) -> dict[str, Any]:
    """One connection, one lookup after the other: nothing of the database, but for the first."""
    progress(what)
    found: dict[str, list[float]] = {bare.url: [], closed.url: []}
    cpu: dict[str, list[float]] = {bare.url: [], closed.url: []}
    tasks = {side.url: asyncio.run(_drain(side.url, side.token, bodies[side.url])) for side in (bare, closed)}
    for number in range(options.rounds):
        for side in (bare, closed) if number % 2 else (closed, bare):
            busy = side.cpu_s()
            asked = _lookups(side.url, side.token, f"/{what}/{tasks[side.url]}", options.seconds)
            cpu[side.url].append((side.cpu_s() - busy) / asked)
            found[side.url].append(asked / options.seconds)
    return _row(f"{what}, 1 connection", bare, closed, found, cpu)


def _lookups(url: str, token: str, path: str, seconds: float) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    number, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}")
        number += 1
    connection.close()
    return number


def _row(
    what: str, bare: Side, closed: Side, per_s: dict[str, list[float]], cpu: dict[str, list[float]]
) -> dict[str, Any]:
    ratios = [before / after for before, after in zip(per_s[bare.url], per_s[closed.url], strict=True)]
    cpu_ratios = [after / before for before, after in zip(cpu[bare.url], cpu[closed.url], strict=True)]
    return {
        "what": what,
        "without/s": round(statistics.median(per_s[bare.url])),
        "with/s": round(statistics.median(per_s[closed.url])),
        "ratio": round(statistics.median(ratios), 3),
        "of rounds": f"{min(ratios):.2f} to {max(ratios):.2f}",
        # Of the web process. It says something on a busy machine, too.
        "without, µs of CPU": round(statistics.median(cpu[bare.url]) * 1e6),
        "with, µs": round(statistics.median(cpu[closed.url]) * 1e6),
        "CPU ratio": round(statistics.median(cpu_ratios), 3),
    }


def _token(live: stack.Stack) -> str:
    command = [sys.executable, "-c", "from everythingfaas.cli import main; main()", "token", "create", "bench"]
    environ = os.environ | {"FAAS_DATA_DIR": str(live.data_dir), "FAAS_AUTH": "token"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()


async def _prepare(url: str, token: str) -> bytes:
    client = Client(url, token=token)
    body = call(await client.register(no_op()))
    await client.waited(await client.submit(body))
    client.close()
    return body


async def _drain(url: str, token: str, body: bytes) -> str:
    """Until the dispatcher has nothing left to do: tasks are claimed in order, so one more is the last. Its id."""
    client = Client(url, token=token)
    async with asyncio.timeout(300):
        task = await client.submit(body)
        await client.waited(task)
    client.close()
    return task


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--connections", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16], help="1,16"
    )
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured")
    parser.add_argument("--folder", type=Path, help="where data folders are made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()

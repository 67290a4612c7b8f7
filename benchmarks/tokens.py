#!/usr/bin/env python
"""What a token costs on the way of a task: python benchmarks/tokens.py

Two stacks side by side on the same machine, one that asks for no token and one that does, take turns round by round at
`POST /execute_function` and `GET /status/{id}` with the same body. What counts is the ratio of the two.
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
from pathlib import Path
from typing import Any

from bench import load, stack
from bench.client import Client
from bench.functions import call, no_op
from bench.report import machine, progress, save, table, warn_if_busy


def main() -> None:
    options = _options()
    warn_if_busy()
    with (
        stack.running(workers=1, folder=options.folder) as bare,
        stack.running(workers=1, folder=options.folder, auth="token") as closed,
    ):
        token = _token(closed)
        bodies = {url: asyncio.run(_prepare(url, header)) for url, header in ((bare.url, ""), (closed.url, token))}
        without, with_one = (bare.url, ""), (closed.url, token)
        rows = [_compare(options, connections, without, with_one, bodies) for connections in options.connections]
        rows.append(_statuses(options, without, with_one, bodies))
    print(table("Committed submits, and lookups of a status, without and with a token", rows))
    save(options.json, {"benchmark": "tokens", "machine": machine(options.folder), "rows": rows})


def _compare(
    options: argparse.Namespace,
    connections: int,
    bare: tuple[str, str],
    closed: tuple[str, str],
    bodies: dict[str, bytes],
) -> dict[str, Any]:
    progress(f"{connections} connections")
    found: dict[str, list[float]] = {bare[0]: [], closed[0]: []}
    for number in range(options.rounds):
        for url, token in (bare, closed) if number % 2 else (closed, bare):
            took = load.post(
                url, "/execute_function", bodies[url], connections=connections, seconds=options.seconds, token=token
            )
            if took["refused"] or took["lost"]:
                raise RuntimeError(f"{took['refused']:.0f} were refused, {took['lost']:.0f} lost")
            found[url].append(took["requests"] / took["seconds"])
            asyncio.run(_drain(url, token, bodies[url]))
    return _row(f"submit, {connections} connections", found[bare[0]], found[closed[0]])


def _statuses(
    options: argparse.Namespace, bare: tuple[str, str], closed: tuple[str, str], bodies: dict[str, bytes]
) -> dict[str, Any]:
    """One connection, one lookup after the other: nothing of the database, but for the first."""
    progress("status")
    found: dict[str, list[float]] = {bare[0]: [], closed[0]: []}
    tasks = {url: asyncio.run(_drain(url, token, bodies[url])) for url, token in (bare, closed)}
    for number in range(options.rounds):
        for url, token in (bare, closed) if number % 2 else (closed, bare):
            found[url].append(_lookups(url, token, tasks[url], options.seconds))
    return _row("status, 1 connection", found[bare[0]], found[closed[0]])


def _lookups(url: str, token: str, task: str, seconds: float) -> float:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    number, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.request("GET", f"/status/{task}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"a status answered {answer.status}")
        number += 1
    connection.close()
    return number / seconds


def _row(what: str, bare: list[float], closed: list[float]) -> dict[str, Any]:
    ratios = [before / after for before, after in zip(bare, closed, strict=True)]
    return {
        "what": what,
        "without/s": round(statistics.median(bare)),
        "with/s": round(statistics.median(closed)),
        "ratio": round(statistics.median(ratios), 3),
        "of rounds": f"{min(ratios):.3f} to {max(ratios):.3f}",
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
        "--connections", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64], help="1,16"
    )
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=4, help="how often each is measured")
    parser.add_argument("--folder", type=Path, help="where data folders are made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""What open pages cost, and how soon they show what happened: python benchmarks/dashboard.py

Tasks come at a steady rate, and the web process is measured in turns without and with pages open, in one run. A page
here is a socket that does what the page's script does: it subscribes (half to the overview, half to the list of
tasks) and acknowledges. How late it is: from just before `POST /execute_function` is sent until the list of tasks
shows its task, so the submit and its commit are in it; and from the moment a task's row says it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import websockets
from bench import appliance, proc
from bench.client import Client
from bench.functions import call, no_op
from bench.report import machine, progress, save, table, warn_if_busy
from bench.stats import percentile

#: As the page's script: see api/static/api/live.js.
ACK_EVERY = 4

#: What only pages have: traffic of one, and how late it is.
SHOWN = ("updates/s", "kB/s", "shown p50 ms", "shown p95 ms", "end shown p50 ms", "end shown p95 ms")

Row = dict[str, Any]


class Watcher:
    """A page: keeps up with one topic, and notes when it first saw a task, and saw it end."""

    def __init__(self, url: str, topic: str) -> None:
        self._url = url.replace("http", "ws", 1) + "/live"
        self._topic = topic
        self.seen: dict[str, float] = {}
        self.ended: list[float] = []
        self.updates = 0
        self.bytes = 0
        self.open = asyncio.Event()

    async def run(self) -> None:
        ended: set[str] = set()
        async with websockets.connect(self._url, compression=None, max_size=None) as socket:
            await socket.send(json.dumps({"subscribe": [self._topic]}))
            async for text in socket:
                now = time.time()
                self.bytes += len(text)
                message = json.loads(text)
                if "topic" not in message:
                    continue
                first = not self.open.is_set()
                self.open.set()
                self.updates += 1
                if self.updates % ACK_EVERY == 0:
                    await socket.send(json.dumps({"ack": self.updates}))
                for name, row in message["parts"].items():
                    if not name.startswith("row:"):
                        continue
                    self.seen.setdefault(row["id"], now)
                    if row["finished"] and row["id"] not in ended:
                        ended.add(row["id"])
                        if not first:
                            self.ended.append(now - row["finished"])


def main() -> None:
    options = _options()
    warn_if_busy()
    about = machine(options.folder)
    print(table("Machine", [about]))
    with appliance.running(workers=options.workers, folder=options.folder) as live:
        rows = asyncio.run(measure(options, live))
    print(table(f"{options.pages} pages, {options.rate} tasks a minute", rows))
    print(table("In short", [summary(rows)]))
    save(options.json, {"benchmark": "dashboard", "options": vars(options), "machine": about, "rows": rows})


async def measure(options: argparse.Namespace, live: appliance.Appliance) -> list[Row]:
    """A row for each turn: without pages, with pages, without, with, …"""
    web = int((live.data_dir / "run" / "web.pid").read_text())
    client = Client(live.url)
    body = call(await client.register(no_op()))
    await client.waited(await client.submit(body))
    rows: list[Row] = []
    for turn in range(options.rounds):
        for pages in (0, options.pages):
            progress(f"round {turn + 1}, {pages} pages")
            rows.append(await _turn(options, client, body, web, pages, live.url))
    client.close()
    return rows


async def _turn(options: argparse.Namespace, client: Client, body: bytes, web: int, pages: int, url: str) -> Row:
    watchers = [Watcher(url, "tasks?" if i % 2 else "overview") for i in range(pages)]
    running = [asyncio.create_task(watcher.run()) for watcher in watchers]
    for watcher in watchers:
        await watcher.open.wait()
    await _submit(client, body, options.rate, 1.0)  # warm
    before, began, strangers = _cpu(web), time.perf_counter(), proc.Strangers()
    updates, sent = sum(w.updates for w in watchers), sum(w.bytes for w in watchers)
    submitted = await _submit(client, body, options.rate, options.seconds)
    took, cpu, strange = time.perf_counter() - began, _cpu(web) - before, strangers.cores()
    await asyncio.sleep(0.5)
    late = [w.seen[task] - at for w in watchers for task, at in submitted.items() if task in w.seen]
    ends = [value for w in watchers for value in w.ended]
    row: Row = {
        "pages": pages,
        "tasks/min": round(60 * len(submitted) / took),
        "web cores": round(cpu / took, 3),
        "strangers": strange,
    }
    shown: Row = dict.fromkeys(SHOWN, "")
    if pages:
        seconds = [percentile(times, q) for times in (late, ends) for q in (0.5, 0.95)]
        traffic = [sum(w.updates for w in watchers) - updates, (sum(w.bytes for w in watchers) - sent) / 1000]
        figures = [*(round(each / took / pages, 1) for each in traffic), *(round(1000 * each) for each in seconds)]
        shown = dict(zip(SHOWN, figures, strict=True))
    row |= shown
    for task in running:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*running, return_exceptions=True)
    return row


async def _submit(client: Client, body: bytes, rate: float, seconds: float) -> dict[str, float]:
    """Submits at a steady rate. When each was sent, by the clock of the wall, as rows have it."""
    sent: dict[str, float] = {}
    asked: set[asyncio.Task[None]] = set()
    end, due = time.perf_counter() + seconds, time.perf_counter()

    async def one() -> None:
        at = time.time()
        sent[await client.submit(body)] = at

    while time.perf_counter() < end:
        task = asyncio.create_task(one())
        asked.add(task)
        task.add_done_callback(asked.discard)
        due += 60 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await asyncio.gather(*asked)
    return sent


def summary(rows: list[Row]) -> Row:
    """The difference between neighbours in time, for the machine drifts."""
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    return {
        "web cores more with pages": round(statistics.median(b["web cores"] - a["web cores"] for a, b in pairs), 3),
        "goal": "< 0.15",
        "shown p95 ms": max(b["shown p95 ms"] for _, b in pairs),
        "goal ms": "< 500",
    }


def _cpu(pid: int) -> float:
    account = proc.account(pid, with_pss=False)
    if account is None:
        raise RuntimeError("the web process is gone")
    return account.cpu_s


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--rate", type=float, default=5000.0, help="tasks a minute")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the data folder is made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()

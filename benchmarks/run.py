#!/usr/bin/env python
"""Measures an appliance by its REST contract, as its users do: python benchmarks/run.py

    latency     no-ops one after the other: submit, then ask each millisecond; and the same with ?wait=
    sleep       20 x sleep(0.5) submitted at once; first submit to last result seen
    throughput  500 no-ops over 16 connections; first submit to last result seen
    weak        10 tasks per worker x sleep(0.2) with 1, 2 and 4 workers, each with an appliance of its own
    idle        CPU and memory of all processes together while nothing happens
    commits     transactions of the database per task, submitted over 1, 16 and 256 connections

Without --url it starts appliances of its own, in temporary data folders. What is measured in seconds is measured
--rounds times; the tables have the median.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from bench import appliance, postgresql, proc
from bench.client import Client, expect
from bench.commits import LogRestarted, counting
from bench.functions import call, no_op, sleeper
from bench.report import QUIET_CORES, machine, progress, save, table, warn_if_busy
from bench.stats import latencies, median_of, spread

PHASES = ("latency", "sleep", "throughput", "weak", "idle", "commits")
#: How long one run of a phase may take.
PHASE_S = 120.0
#: Who asks for an unfinished task does it so often; four do, each for the oldest task that nobody asks for.
POLL_S = 0.005
WATCHERS = 4

Row = dict[str, Any]


class Bench:
    """The phases, against one service."""

    def __init__(self, options: argparse.Namespace, url: str, live: appliance.Appliance | None, database: str) -> None:
        self.options = options
        self.url = url
        self.live = live  #: None: it is not ours, and its processes are not known
        self.database = database  #: of a PostgreSQL, for psycopg; empty: SQLite

    # latency

    async def latency(self) -> list[Row]:
        """Each round: warm up, then each way `--tasks` times in a row."""
        rounds: dict[str, list[dict[str, float]]] = {}
        client = Client(self.url)
        body = call(await client.register(no_op()))
        submits: list[float] = []

        async def empty() -> None:
            expect(await client.get("/healthz"), 200)

        async def polled() -> None:
            began = time.perf_counter()
            task = await client.submit(body)
            submits.append(time.perf_counter() - began)
            await client.finished(task, poll_s=0.001)

        async def waited() -> None:
            await client.waited(await client.submit(body))

        ways = {"an empty request (GET /healthz)": empty, "submit, ask each ms": polled, "submit, ?wait=": waited}
        for _ in range(self.options.rounds):
            for name, way in ways.items():
                for _ in range(10):
                    await way()
                submits.clear()
                times = [await _timed(way) for _ in range(self.options.tasks)]
                rounds.setdefault(name, []).append(latencies(times))
                if submits:
                    rounds.setdefault("  of which the submit", []).append(latencies(submits))
        client.close()
        return [
            {"no-op, one after the other": name, **median_of(found), "range of p50": spread(found, "p50_ms")}
            for name, found in rounds.items()
        ]

    # sleep, throughput, weak scaling

    async def sleep(self) -> list[Row]:
        rounds = [await self._batch(sleeper(), 0.5, n=20, connections=4) for _ in range(self.options.rounds)]
        ideal_s = -(-20 // self.options.workers) * 0.5
        return [{"20 x sleep(0.5)": f"{self.options.workers} workers", "ideal_s": ideal_s, **median_of(rounds)}]

    async def throughput(self) -> list[Row]:
        rows: list[Row] = []
        for name, wait in (("ask each 5 ms", False), ("?wait=", True)):
            rounds = [
                await self._batch(no_op(), n=self.options.no_ops, connections=16, wait=wait)
                for _ in range(self.options.rounds)
            ]
            title = f"{self.options.no_ops} no-ops"
            rows.append({title: name, **median_of(rounds), "range of tasks/s": spread(rounds, "tasks_per_s")})
        return rows

    async def weak(self, workers: int) -> list[Row]:
        """One row, for an appliance with so many workers."""
        rounds = [await self._batch(sleeper(), 0.2, n=10 * workers, connections=4) for _ in range(self.options.rounds)]
        figures = median_of(rounds)
        efficiency = round(2.0 / figures["total_s"], 4)
        return [
            {"10 per worker x sleep(0.2)": f"{workers} workers", "ideal_s": 2.0, **figures, "efficiency": efficiency}
        ]

    async def _batch(
        self, function: Callable[..., Any], *args: Any, n: int, connections: int, wait: bool = False
    ) -> dict[str, float]:
        """Submits `n` calls over `connections`, and has each result, oldest first, over four more."""
        client = Client(self.url)
        body = call(await client.register(function), *args)
        assert await client.waited(await client.submit(call(await client.register(no_op())))) == "COMPLETED"
        tasks: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(n)]
        submits, watches = iter(range(n)), iter(range(n))

        async def submitter() -> None:
            for i in submits:
                tasks[i].set_result(await client.submit(body))

        async def watcher() -> None:
            for i in watches:
                task = await tasks[i]
                status = await (client.waited(task) if wait else client.finished(task, poll_s=POLL_S))
                if status != "COMPLETED":
                    raise RuntimeError(f"task {task} ended {status}")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as watching:
            for _ in range(WATCHERS):
                watching.create_task(watcher())
            async with asyncio.TaskGroup() as submitting:
                for _ in range(connections):
                    submitting.create_task(submitter())
            submit_s = time.perf_counter() - began
        total_s = time.perf_counter() - began
        client.close()
        return {
            "total_s": round(total_s, 3),
            "submits_per_s": round(n / submit_s, 1),
            "tasks_per_s": round(n / total_s, 1),
        }

    # idle

    async def idle(self) -> list[Row]:
        """After some work and a rest, over `--idle-s` seconds, on the scheduler's own clock."""
        if self.live is None:
            return [{"idle": "left out: the processes behind --url are not known"}]
        await self._batch(no_op(), n=50, connections=4)
        await asyncio.sleep(5.0)
        before, began = proc.cpu_of_tree(self.live.pid), time.perf_counter()
        await asyncio.sleep(self.options.idle_s)
        after, took_s = proc.cpu_of_tree(self.live.pid), time.perf_counter() - began
        rows: list[Row] = []
        for pid, cpu_s in after.items():
            account = proc.account(pid)
            if account is not None:
                percent = 100 * (cpu_s - before.get(pid, 0.0)) / took_s
                rows.append(
                    {"process": account.name, "cpu_percent": round(percent, 3), "pss_MB": round(account.pss_mb, 1)}
                )
        total = {name: round(sum(row[name] for row in rows), 3) for name in ("cpu_percent", "pss_MB")}
        return [*rows, {"process": f"all {len(rows)}", **total}]

    # commits

    async def commits(self) -> list[Row]:
        """`--tasks` no-ops (more, over more connections) until the last result; see `bench.commits`."""
        if self.live is None:
            return [{"commits": "left out: the database behind --url is not known"}]
        rows: list[Row] = []
        for connections in (1, 16, 256):
            n = self.options.tasks * {1: 1, 16: 5, 256: 10}[connections]
            for attempt in itertools.count(1):
                try:
                    count, took_s = await self._commits_of(n, connections)
                    break
                except LogRestarted:
                    if attempt == 5:
                        raise
            rows.append(
                {
                    "connections": connections,
                    "tasks": n,
                    "commits": count,
                    "commits_per_task": round(count / n, 3),
                    "tasks_per_s": round(n / took_s, 1),
                }
            )
        return rows

    async def _commits_of(self, n: int, connections: int) -> tuple[int, float]:
        assert self.live is not None
        await self._batch(no_op(), n=8, connections=4)
        await asyncio.sleep(0.5)
        with counting(self.database or self.live.database) as counter:
            before, began = counter.count(), time.perf_counter()
            await self._batch(no_op(), n=n - 1, connections=connections, wait=True)  # it submits one for itself
            took_s = time.perf_counter() - began
            await asyncio.sleep(0.2)
            return counter.count() - before, took_s


async def _timed(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    await way()
    return time.perf_counter() - began


def _run(bench: Bench, phase: str, *args: int) -> list[Row]:
    progress(" ".join([phase, *map(str, args)]))

    strangers = proc.Strangers()

    async def limited() -> list[Row]:
        async with asyncio.timeout(PHASE_S * bench.options.rounds):
            rows: list[Row] = await getattr(bench, phase)(*args)
            return rows

    rows = asyncio.run(limited())
    if bench.live is not None and (cores := strangers.cores()) > QUIET_CORES:
        progress(f"others used {cores:g} cores meanwhile: such figures say little")
    return rows


@contextmanager
def _bench(options: argparse.Namespace, workers: int) -> Iterator[Bench]:
    """The service at --url, else a new appliance, on a new PostgreSQL if that is asked for."""
    if options.url:
        yield Bench(options, options.url.rstrip("/"), None, "")
        return
    with ExitStack() as stack:
        environ, database = {}, ""
        if options.database == "postgresql":
            cluster = stack.enter_context(postgresql.cluster(options.folder))
            environ, database = {"FAAS_DATABASE_URL": cluster.url}, cluster.conninfo
        started = appliance.running("--mode", options.mode, workers=workers, folder=options.folder, environ=environ)
        live = stack.enter_context(started)
        yield Bench(options, live.url, live, database)


def main() -> None:
    options = _options()
    if not options.url:
        warn_if_busy()
    out: dict[str, Any] = {"benchmark": "run", "options": vars(options), "machine": machine(options.folder)}
    print(table("Machine", [out["machine"]]))
    titles = {"idle": f"Idle for {options.idle_s:g} s", "commits": "Commits of the database"}
    with _bench(options, options.workers) as bench:
        for phase in options.phases:
            if phase != "weak":
                out[phase] = _run(bench, phase)
                print(table(titles.get(phase, phase.capitalize()), out[phase]), flush=True)
    if "weak" in options.phases:
        out["weak"] = []
        for workers in [options.workers] if options.url else [1, 2, 4]:
            with _bench(options, workers) as bench:
                out["weak"] += _run(bench, "weak", workers)
        print(table("Weak scaling", out["weak"]))
    save(options.json, out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="measure the service there, and start none")
    parser.add_argument("--workers", type=int, default=4, help="workers of the appliance (of the one at --url)")
    parser.add_argument("--mode", default="local", help="local, pull or push")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--phases", type=_phases, default=PHASES, help=f"some of {','.join(PHASES)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--tasks", type=int, default=200, help="no-ops of the phases latency and commits")
    parser.add_argument("--no-ops", type=int, default=500, help="no-ops of the phase throughput")
    parser.add_argument("--idle-s", type=float, default=30.0, help="how long idle is")
    parser.add_argument("--folder", type=Path, help="where data folders are made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


def _phases(text: str) -> tuple[str, ...]:
    phases = tuple(text.split(","))
    if unknown := set(phases) - set(PHASES):
        _bad_phases(unknown)
    return phases


def _bad_phases(unknown: set[str]) -> NoReturn:
    raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected some of {','.join(PHASES)}")


if __name__ == "__main__":
    main()

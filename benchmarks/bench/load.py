"""A load of one POST again and again over keep-alive connections: by wrk, else by Python.

wrk needs a tenth of a core for what takes a Python client a whole one, which it would take from the server.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

from bench.client import Client
from bench.stats import percentile

_SCRIPT = Path(__file__).with_name("post.lua")


def generator() -> str:
    """Which one will be used."""
    return "wrk" if shutil.which("wrk") else "python"


def post(url: str, path: str, body: bytes, *, connections: int, seconds: float, token: str = "") -> dict[str, float]:
    """requests, seconds, p50_ms, p99_ms, refused (answers other than 2xx and 3xx), lost (without an answer)."""
    if generator() == "wrk":
        return _wrk(url + path, body, connections, seconds, token)
    return _python(url, path, body, connections, seconds, token)


def _wrk(url: str, body: bytes, connections: int, seconds: float, token: str) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(_SCRIPT), url]
    environ = os.environ | {"BENCH_BODY": body.decode(), "BENCH_TOKEN": token}
    out = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return found


def _python(url: str, path: str, body: bytes, connections: int, seconds: float, token: str) -> dict[str, float]:
    """Two processes, that the client is not alone on its core; one for one connection."""
    shares = [connections] if connections < 2 else [connections - connections // 2, connections // 2]
    with multiprocessing.get_context("spawn").Pool(len(shares)) as pool:
        pool.map(_nothing, shares)  # they have imported everything
        began = time.perf_counter()
        parts = pool.starmap(_share, [(url, path, body, share, seconds, token) for share in shares])
        took = time.perf_counter() - began
    times = [time for part, _, _ in parts for time in part]
    return {
        "requests": len(times),
        "seconds": took,
        "p50_ms": percentile(times, 0.5) * 1000,
        "p99_ms": percentile(times, 0.99) * 1000,
        "refused": sum(refused for _, refused, _ in parts),
        "lost": sum(lost for _, _, lost in parts),
    }


def _nothing(_: int) -> None:
    return


def _share(
    url: str, path: str, body: bytes, connections: int, seconds: float, token: str
) -> tuple[list[float], int, int]:
    return asyncio.run(_drive(url, path, body, connections, seconds, token))


async def _drive(
    url: str, path: str, body: bytes, connections: int, seconds: float, token: str
) -> tuple[list[float], int, int]:
    client, times, refused, lost = Client(url, token=token), [], 0, 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal refused, lost
        while (began := time.perf_counter()) < end:
            try:
                answer = await client.post(path, body)
            except OSError:
                lost += 1
                continue
            times.append(time.perf_counter() - began)
            refused += answer.status >= 400

    await asyncio.gather(*(one() for _ in range(connections)))
    client.close()
    return times, refused, lost

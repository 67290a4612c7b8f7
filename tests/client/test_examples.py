"""The examples do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.live import ROOT, Appliance, free_port

EXAMPLES = ROOT / "examples"
TESTED = {"hello.py", "notebook.ipynb", "page.py", "sweep.py", "thumbnails.py"}  # hello.py by tests/integration


def environ(faas: Appliance, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    return clean | {"PYTHONPATH": str(ROOT), "FAAS_URL": faas.url} | more


def run(faas: Appliance, *command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environ(faas), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_example_is_without_a_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if not path.name.startswith("__")} == TESTED


def test_the_sweep_finds_pi(faas: Appliance) -> None:
    lines = run(faas, EXAMPLES / "sweep.py").splitlines()
    assert [line.split()[0] for line in lines] == ["100", "1000", "10000"]
    assert abs(float(lines[-1].split()[2]) - 3.14) < 0.03


def test_thumbnails_are_smaller(faas: Appliance, tmp_path: Path) -> None:
    for name, width in (("a.ppm", 200), ("b.ppm", 10)):
        (tmp_path / name).write_bytes(b"P6 %d 100 255\n" % width + bytes(range(100)) * 3 * width)
    (tmp_path / "c.txt").write_text("no picture, for sure it is none")
    said = run(faas, EXAMPLES / "thumbnails.py", tmp_path, faas.url)
    assert (tmp_path / "thumbnails" / "a.ppm").read_bytes().startswith(b"P6")
    assert (tmp_path / "thumbnails" / "a.ppm").stat().st_size < 5_000
    assert "c.txt: " in said
    assert not (tmp_path / "thumbnails" / "c.txt").exists()


def test_the_page_calls_a_function(faas: Appliance) -> None:
    port = str(free_port())
    command = [sys.executable, EXAMPLES / "page.py", faas.url]
    with subprocess.Popen(command, env=environ(faas, PORT=port), stdout=subprocess.PIPE, text=True) as page:
        try:
            assert page.stdout is not None
            url = page.stdout.readline().strip()
            assert "<button" in requests.get(url, timeout=10).text
            answer = requests.post(f"{url}/count", data='{"args": ["one three two"]}', timeout=30).json()
            assert answer["result"] == {"words": 3, "longest": "three"}
            assert requests.post(f"{url}/count", data='{"args": [1]}', timeout=30).json()["state"] == "FAILED"
        finally:
            page.terminate()


def test_the_notebook_runs_from_top_to_bottom(faas: Appliance, tmp_path: Path) -> None:
    """Its cells in one `__main__`, as a kernel has it: but without a kernel, which takes seconds to start."""
    notebook: dict[str, Any] = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join(cells))
    said = run(faas, script).splitlines()
    assert said[0] == "91.7 m at 45 degrees"
    assert said[1].startswith("TypeError(")
    assert said[2:] == ["9 16 [0, 1, 4, 9, 16]", "18 calls"]

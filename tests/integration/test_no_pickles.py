"""Web and dispatcher end before they open a pickle that could do something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everythingfaas.no_pickles import EXIT
from tests.live import ROOT, free_port

#: Opened, this would leave a file.
BOMB = """
import pickle
class Bomb:
    def __reduce__(self):
        return open, ({path!r}, "w")
bomb = pickle.dumps(Bomb())
"""
#: A mistake, in the first thing that each of the two does.
STARTS = {
    "web": """
import faas_project.serve as serve
serve.listen = lambda settings: pickle.loads(bomb)
serve.main()
""",
    "dispatcher": """
import django; django.setup()
from dispatcher.management.commands import task_dispatcher
task_dispatcher.take_identity = lambda folder: pickle.loads(bomb)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "task_dispatcher", "-m", "local"])
""",
    "uvicorn": "import main\npickle.loads(bomb)\n",
    "a nested one": "from everythingfaas import no_pickles\nno_pickles.forbid()\nimport dill\ndill.loads(bomb)\n",
    "the slow way": "from everythingfaas import no_pickles\nno_pickles.forbid()\npickle._loads(bomb)\n",
}


@pytest.mark.parametrize("start", STARTS)
def test_a_mistake_ends_the_process(start: str, tmp_path: Path):
    path = tmp_path / "bang"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    environ |= {
        "DJANGO_SETTINGS_MODULE": "faas_project.settings",
        "FAAS_DATA_DIR": str(tmp_path),
        "FAAS_PORT": str(free_port()),
    }
    done = subprocess.run(
        [sys.executable, "-c", BOMB.format(path=str(path)) + STARTS[start]],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == EXIT, done.stderr
    assert "about to open a pickle that names" in done.stderr
    assert not path.exists()


def test_plain_data_is_no_harm():
    code = "from everythingfaas import no_pickles; no_pickles.forbid()\nimport pickle; print(pickle.loads(b'K\\x01.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"

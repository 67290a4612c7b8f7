"""Walks through /proc, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from everythingfaas import proctree
from tests.live import until

# Each level starts two of the next one and says its number; the leaves wait.
TREE = """
import os, subprocess, sys
depth = int(sys.argv[1])
command = [sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]]
below = [subprocess.Popen(command) for _ in range(2 if depth else 0)]
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.read() if not depth else [process.wait() for process in below]
"""
SIZE = 1 + 2 + 4


@pytest.fixture
def tree() -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """A process, and the numbers of all that hang from it."""
    root = subprocess.Popen(
        [sys.executable, "-c", TREE, "2", TREE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OF_THE_TREE": "yes"},
    )
    pids = {int(root.stdout.readline()) for _ in range(SIZE)}
    yield root, pids
    proctree.kill_tree(root.pid)
    root.communicate()


def is_dead(pid: int) -> bool:
    process = proctree.look(pid)
    return process is None or process.dead


def test_descendants_are_all_below_and_not_the_root(tree):
    root, pids = tree
    assert set(proctree.descendants(root.pid)) == pids - {root.pid}


def test_who_is_stopped(tree):
    root, pids = tree
    assert not any(map(proctree.is_stopped, pids))
    root.send_signal(signal.SIGSTOP)
    until(lambda: proctree.is_stopped(root.pid))
    root.send_signal(signal.SIGCONT)
    until(lambda: not proctree.is_stopped(root.pid))
    proctree.kill_tree(root.pid)
    assert not proctree.is_stopped(root.pid)


def test_the_whole_tree_is_killed_and_counted(tree):
    root, pids = tree
    assert proctree.kill_tree(root.pid) == SIZE
    assert all(is_dead(pid) for pid in pids)
    assert root.wait() == -9
    assert proctree.kill_tree(root.pid) == 0


def test_the_root_may_be_spared(tree):
    root, pids = tree
    assert proctree.kill_tree(root.pid, include_root=False) == SIZE - 1
    assert all(is_dead(pid) for pid in pids - {root.pid})
    assert root.wait() == 0  # it waited for its children and went home


def test_processes_are_found_by_what_they_were_started_with(tree):
    _, pids = tree
    assert set(proctree.find_by_environment("OF_THE_TREE", "yes")) == pids
    assert proctree.find_by_environment("OF_THE_TREE", "ye") == []


def test_a_name_that_looks_like_the_fields_behind_it_is_no_problem(tmp_path):
    program = tmp_path / ") Z 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "1000"]) as process:
        seen = proctree.look(process.pid)
        assert (seen.parent, seen.dead) == (os.getpid(), False)
        assert process.pid in [child.pid for child in proctree.children(os.getpid())]
        process.kill()


def test_who_is_not_there_has_no_line():
    with subprocess.Popen(["true"]) as process:
        pass
    assert proctree.look(process.pid) is None
    assert proctree.descendants(process.pid) == []

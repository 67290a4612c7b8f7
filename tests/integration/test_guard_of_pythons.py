"""Functions of other Pythons, through a whole appliance: each ends with a result or with a reason."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import dill
import pytest

from everythingfaas.pythons import names
from everythingfaas.serialize import encode
from tests.functions import pickled
from tests.live import Appliance, running

HERE = sys.version_info[:2]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with running(tmp_path_factory.mktemp("data"), "--workers", "1", FAAS_UNMATCHED_S="1") as appliance:
        yield appliance


def test_a_function_of_another_python_fails_with_the_remedy(live: Appliance) -> None:
    foreign = next(f for f in pickled() if f.name == "nested" and HERE not in f.origin.minors)
    status, value = live.result(live.execute(live.register(None, payload=encode(foreign.raw)), 4))
    assert (status, type(value).__name__) == ("FAILED", "WorkerFailure")
    assert f"start a worker with Python {names([foreign.python])}, or register" in str(value)
    assert f"connected workers have {names([HERE])}" in str(value)


def test_what_the_client_says_is_obeyed_and_a_new_queue_is_found(live: Appliance) -> None:
    body = {"name": "f", "payload": encode(dill.dumps(lambda x: x + 1, recurse=True)), "python": names([HERE])}
    function = live.post("/register_function", body).json()["function_id"]
    assert live.result(live.execute(function, 1)) == ("COMPLETED", 2)
    function = live.post("/register_function", body | {"python": "3.99"}).json()["function_id"]
    status, value = live.result(live.execute(function, 1))
    assert status == "FAILED"
    assert "written by Python 3.99" in str(value)


def test_a_crash_of_what_may_be_another_pythons_is_explained(live: Appliance) -> None:
    def crash(number: int) -> None:
        os.kill(os.getpid(), number)

    # Protocol 2 hides the instructions, so that several versions may have written it.
    hidden = live.register(crash, payload=encode(dill.dumps(crash, protocol=2, recurse=True)))
    status, value = live.result(live.execute(hidden, signal.SIGSEGV))
    assert status == "FAILED"
    assert f"probably written by another Python than the worker's {names([HERE])}" in str(value)
    certain = live.post("/register_function", {"name": "f", "payload": encode(dill.dumps(crash)), "python": "3.11"})
    if HERE == (3, 11):
        status, value = live.result(live.execute(certain.json()["function_id"], signal.SIGSEGV))
        assert status == "FAILED"
        assert "its process died 3 times" in str(value)

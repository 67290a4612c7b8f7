"""The tests of CPython 3.13 for executors, run against ours: python cpython_futures.py URL

They are those of the `test` package of the interpreter that runs this. Three cases are skipped: they start another one
that imports the class from `concurrent.futures` by its name. `tests/client/test_survival.py` tests the same.
"""

from __future__ import annotations

import sys
import unittest
from typing import Any

from test import support
from test.test_concurrent_futures import executor, test_as_completed, test_shutdown, test_wait
from test.test_concurrent_futures.util import BaseTestCase, ExecutorMixin

from everythingfaas.client import Executor

URL = sys.argv.pop(1) if __name__ == "__main__" else ""
BY_NAME = "starts an interpreter that imports the executor from concurrent.futures by its name"


class RemoteExecutor(Executor):
    def __init__(self, max_workers: int | None = None, **policy: Any) -> None:
        super().__init__(URL, max_workers=max_workers, **policy)


class RemoteMixin(ExecutorMixin):
    executor_type = RemoteExecutor


class ExecutorCases(RemoteMixin, executor.ExecutorTest, BaseTestCase):
    pass


class WaitCases(RemoteMixin, test_wait.WaitTests, BaseTestCase):
    pass


class AsCompletedCases(RemoteMixin, test_as_completed.AsCompletedTests, BaseTestCase):
    pass


class ShutdownCases(RemoteMixin, test_shutdown.ExecutorShutdownTest, BaseTestCase):
    @unittest.skip(BY_NAME)
    def test_interpreter_shutdown(self) -> None: ...

    @unittest.skip(BY_NAME)
    def test_submit_after_interpreter_shutdown(self) -> None: ...

    @unittest.skip(BY_NAME)
    def test_hang_gh83386(self) -> None: ...

    def test_cancel_futures(self) -> None:
        """As it is, but the shutdown waits for the first call: the case asks that one was not called off, and calling
        off all of them may take a service less time than to begin one."""
        futures: list[Any] = []
        submit, shutdown = self.executor.submit, self.executor.shutdown

        def noted(*call: Any) -> Any:
            futures.append(submit(*call))
            return futures[-1]

        def after_the_first(**options: Any) -> None:
            futures[0].result()
            shutdown(**options)

        self.executor.submit, self.executor.shutdown = noted, after_the_first
        super().test_cancel_futures()


if __name__ == "__main__":
    support.use_resources = None  # all of them
    unittest.main(verbosity=2)

"""The appliance in containers. Left out of a plain `pytest`: it needs an engine, and minutes. See .ci/compose-test."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.compose.stack import Stack, stack


@pytest.fixture(scope="session")
def project() -> Iterator[Stack]:
    """One project for all tests, which start it as they need it."""
    with stack() as project:
        yield project


@pytest.fixture(scope="session")
def running(project: Stack) -> Stack:
    """In push mode, and healthy."""
    project.up("--build", FAAS_MODE="push", FAAS_TASK_DEADLINE="")
    return project


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What failed says what the containers said."""
    report = yield
    project = item.funcargs.get("project") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(project, Stack):
        report.sections.append(("the last lines of the containers", project.logs()))
    return report

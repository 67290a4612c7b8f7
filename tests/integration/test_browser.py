"""The pages in a real browser, headless Chromium, on an appliance that runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import ROOT, Appliance, running

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect

PASSWORD = "correct horse"
#: How long something may take to show. Much less is usual; tests share their machine.
SHOWN_MS = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is not installed, and CI=true: apt-get install chromium")
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with playwright_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One slot, so that a second task waits for the first."""
    with running(tmp_path_factory.mktemp("browser"), "--workers", "1") as live:
        yield live


class Tab:
    """A page, and what went wrong in it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(SHOWN_MS)
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", self._failed)
        page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )

    def _failed(self, request: Any) -> None:
        # A download ends for the page where it begins for the browser, and whoever goes on to the next page aborts
        # what the last one still loads.
        if "download" not in request.url and request.failure != "net::ERR_ABORTED":
            self.errors.append(f"{request.url} {request.failure}")

    def open(self, path: str) -> Any:
        self.page.goto(self.url + path)
        expect(self.page.locator("#connection")).to_have_text("live", timeout=SHOWN_MS)
        return self.page


@pytest.fixture
def tab(browser: Any, live: Appliance) -> Iterator[Tab]:
    """Fails if anything was an error to the browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = Tab(context.new_page(), live.url)
    yield tab
    context.close()
    assert tab.errors == []


def gated() -> Any:
    """Prints, waits until the file is there, prints again."""

    def gated(path: str) -> str:
        import os
        import time

        print("\x1b[31mbefore\x1b[0m the gate", flush=True)
        while not os.path.exists(path):
            time.sleep(0.01)
        print("behind it", flush=True)
        return path

    return gated


def row(page: Any, task: str) -> Any:
    return page.locator(f'#tasks [data-key="{task}"]')


def state(page: Any, task: str) -> Any:
    return row(page, task).locator(".state-cell")


def test_an_empty_overview_teaches(tab: Tab, live: Appliance):
    page = tab.open("/")
    expect(page.locator("#no-task")).to_contain_text(f'url = "{live.url}"')
    expect(page.locator("#charts")).to_be_hidden()
    expect(page.locator("#workers li")).to_have_count(1)
    live.call(lambda: 1)
    expect(page.locator("#no-task")).to_be_hidden(timeout=SHOWN_MS)
    expect(page.locator("#tile-completed")).to_have_text("1", timeout=SHOWN_MS)
    expect(page.locator("#throughput canvas")).to_be_visible()


def test_a_task_is_seen_from_queued_to_completed_without_a_reload(tab: Tab, live: Appliance, tmp_path: Path):
    function = live.register(gated())
    page = tab.open("/tasks/")
    page.evaluate("window.stayed = true")
    first = live.execute(function, str(tmp_path / "first"))
    expect(state(page, first)).to_have_text(re.compile("running"), timeout=SHOWN_MS)
    second = live.execute(function, str(tmp_path / "second"))
    expect(state(page, second)).to_have_text(re.compile("queued"), timeout=SHOWN_MS)
    (tmp_path / "first").touch()
    expect(state(page, first)).to_have_text(re.compile("completed"), timeout=SHOWN_MS)
    expect(state(page, second)).to_have_text(re.compile("running"), timeout=SHOWN_MS)
    (tmp_path / "second").touch()
    expect(state(page, second)).to_have_text(re.compile("completed"), timeout=SHOWN_MS)
    assert page.evaluate("window.stayed")
    keys = page.locator("#tasks li").evaluate_all("rows => rows.map(row => row.dataset.key)")
    assert keys[:2] == [second, first], "newest first"


def test_output_is_live_and_then_what_was_stored(tab: Tab, live: Appliance, tmp_path: Path):
    task = live.submit(gated(), str(tmp_path / "gate"))
    page = tab.open(f"/tasks/{task}/")
    expect(page.locator("#output")).to_have_text("before the gate\n", timeout=SHOWN_MS)
    expect(page.locator("#output .fg-red")).to_have_text("before")
    expect(page.locator("#output-of")).to_have_text("live")
    (tmp_path / "gate").touch()
    expect(page.locator("#state")).to_contain_text("COMPLETED", timeout=SHOWN_MS)
    expect(page.locator("#output-of")).to_have_text("attempt 1", timeout=SHOWN_MS)
    expect(page.locator("#output")).to_have_text("before the gate\nbehind it\n", timeout=SHOWN_MS)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.path().read_bytes() == b"\x1b[31mbefore\x1b[0m the gate\nbehind it\n"


def test_a_failure_shows_its_traceback(tab: Tab, live: Appliance):
    def fails() -> None:
        raise ValueError("<b>no such order</b>")

    task = live.submit(fails)
    page = tab.open(f"/tasks/{task}/")
    expect(page.locator("#state")).to_contain_text("FAILED", timeout=SHOWN_MS)
    expect(page.locator("#error")).to_contain_text("ValueError: <b>no such order</b>")
    page = tab.open("/tasks/?state=failed")
    expect(row(page, task)).to_contain_text("no such order")


def test_a_hovered_list_keeps_its_lines(tab: Tab, live: Appliance):
    function = live.register(lambda: 1)
    shown = live.execute(function)
    page = tab.open("/tasks/")
    expect(state(page, shown)).to_have_text(re.compile("completed"), timeout=SHOWN_MS)
    row(page, shown).hover()
    news = [live.execute(function) for _ in range(3)]
    expect(page.locator("#news")).to_have_text("3 new", timeout=SHOWN_MS)
    expect(row(page, news[0])).to_have_count(0)
    page.click("#news")
    expect(state(page, news[2])).to_have_text(re.compile("completed"), timeout=SHOWN_MS)


def test_it_comes_back_after_the_server_has_restarted(tab: Tab, live: Appliance):
    page = tab.open("/tasks/")
    page.evaluate("window.stayed = true")
    os.kill(live.pid("web"), signal.SIGKILL)
    expect(page.locator("#connection")).to_have_text(re.compile(r"stale since \d\d:\d\d:\d\d"), timeout=SHOWN_MS)
    expect(page.locator("#connection")).to_have_text("live", timeout=30_000)
    task = live.submit(lambda: 1)
    expect(state(page, task)).to_have_text(re.compile("completed"), timeout=SHOWN_MS)
    assert page.evaluate("window.stayed")
    # What the browser itself says of a server that is not there is no mistake of the page.
    tab.errors = [error for error in tab.errors if "ERR_CONNECTION" not in error]


def test_a_running_task_is_cancelled_and_run_again(tab: Tab, live: Appliance, tmp_path: Path):
    task = live.submit(gated(), str(tmp_path / "gate"))
    page = tab.open(f"/tasks/{task}/")
    expect(page.locator("#state")).to_contain_text("RUNNING", timeout=SHOWN_MS)
    page.click("#cancel")
    expect(page.locator("#state")).to_contain_text("CANCELLED", timeout=SHOWN_MS)
    (tmp_path / "gate").touch()
    page.click("#retry")
    page.wait_for_url(re.compile(rf"/tasks/(?!{task})"))
    expect(page.locator("#state")).to_contain_text("COMPLETED", timeout=SHOWN_MS)
    expect(page.locator("#details")).to_contain_text(task)


def test_the_overview_is_in_the_admin(tab: Tab, live: Appliance):
    assert live.data_dir is not None
    environ = os.environ | {"FAAS_DATA_DIR": str(live.data_dir), "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    command = [
        sys.executable,
        "manage.py",
        "createsuperuser",
        "--noinput",
        "--username",
        "root",
        "--email",
        "r@example.org",
    ]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True)
    tab.page.goto(live.url + "/admin/live/")
    tab.page.fill("#id_username", "root")
    tab.page.fill("#id_password", PASSWORD)
    tab.page.click("[type=submit]")
    expect(tab.page.locator("#connection")).to_have_text("live", timeout=SHOWN_MS)
    task = live.submit(lambda: 1)
    expect(tab.page.locator(f'#newest [data-key="{task}"]')).to_contain_text("completed", timeout=SHOWN_MS)


@pytest.mark.parametrize("width", [390, 700, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_have_no_errors(browser: Any, live: Appliance, width: int, scheme: str):
    task = live.submit(lambda: print("x" * 500))
    assert live.result(task)[0] == "COMPLETED"
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = Tab(context.new_page(), live.url)
    for path in ("/", "/tasks/", f"/tasks/{task}/", "/workers/", "/functions/", "/functions/?q=nothing"):
        page = tab.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    context.close()
    assert tab.errors == []

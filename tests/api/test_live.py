"""The pages' WebSocket, with real sockets to a real web process."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api import mirror, moves
from api.consumers import RESTART
from api.live.page import MAX_TOPICS, WINDOW
from api.redis_sync import SyncLink
from tests.api.conftest import Workshop, committed, ended, report
from tests.redis_fixture import Valkey
from tests.web import Web, on_sqlite, web_process

pytestmark = on_sqlite


class Browser:
    """What a page's script does with its socket: subscribes, acknowledges, keeps what it is told."""

    def __init__(self, socket: ClientConnection, *, acknowledges: bool = True) -> None:
        self.socket = socket
        self.acknowledges = acknowledges
        self.parts: dict[str, dict[str, Any]] = {}
        self.updates: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []

    def tell(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def read(self, timeout_s: float = 10.0) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout_s))
        topic = message.get("topic")
        if topic is None:
            self.said.append(message)
            return message
        self.updates.append(message)
        if message["full"]:
            self.parts[topic] = {}
        self.parts[topic] |= message["parts"]
        for name in message["gone"]:
            del self.parts[topic][name]
        if self.acknowledges:
            self.tell(ack=len(self.updates))
        return message

    def until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            self.read(max(0.0, deadline - time.monotonic()))
        return value

    def shows(self, topic: str, part: str) -> Any:
        return self.parts.get(topic, {}).get(part)


@contextmanager
def page(web: Web, *topics: str, **options: Any) -> Iterator[Browser]:
    with connect(f"ws://127.0.0.1:{web.port}/live", origin=None, compression=None) as socket:
        browser = Browser(socket, **options)
        if topics:
            browser.tell(subscribe=topics)
            browser.until(lambda: all(topic in browser.parts for topic in topics))
        yield browser


def test_a_snapshot_and_then_what_changes(web: Web):
    with page(web, "overview", "tasks?") as browser:
        assert browser.shows("overview", "counts")["queued"] == 0
        assert len(browser.shows("overview", "minutes")) == 15
        assert browser.shows("tasks?", "order") == []
        task = web.submit()
        browser.until(lambda: browser.shows("tasks?", "order") == [task])
        row = browser.shows("tasks?", f"row:{task}")
        assert (row["state"], row["name"], row["error"]) == ("queued", "function", None)
        browser.until(lambda: browser.shows("overview", "counts")["queued"] == 1)
        assert not browser.updates[-1]["full"]
        assert "workers" not in browser.updates[-1]["parts"], "what is the same is not sent again"


def test_a_task_with_its_attempts(web: Web, workshop: Workshop):
    claimed = workshop.running()
    topic = f"task:{claimed.task}"
    with page(web, topic) as browser:
        assert browser.shows(topic, "task")["row"]["state"] == "queued", "given out, but not begun"
        assert browser.shows(topic, "attempts") == []
        with committed() as cursor:
            moves.end(cursor, [ended(claimed)])
        browser.until(lambda: browser.shows(topic, "task")["row"]["state"] == "completed")
        (attempt,) = browser.shows(topic, "attempts")
        assert (attempt["attempt"], attempt["outcome"], attempt["worker"]) == (1, "returned", "w1")


def test_nothing_is_sent_while_nothing_changes(web: Web):
    with page(web, "overview", "workers", "tasks?state=failed") as browser:
        with pytest.raises(TimeoutError):
            browser.until(lambda: False, 2.5)
        # But for the minute that may have begun.
        assert len(browser.updates) <= 4


def test_updates_are_at_most_five_a_second(web: Web):
    function = web.register()
    with page(web, "tasks?") as browser:
        began, before = time.monotonic(), len(browser.updates)
        tasks = []
        while time.monotonic() < began + 1.5:
            tasks.append(web.execute(function, 1).json()["task_id"])
        browser.until(lambda: tasks[-1] in browser.shows("tasks?", "order"))
        took = time.monotonic() - began
        assert len(tasks) > 50
        assert len(browser.updates) - before <= 5 * took + 2


def test_without_redis_the_database_is_looked_at(web_alone: Web, workshop: Workshop):
    with page(web_alone, "tasks?") as browser:
        began = time.monotonic()
        (task,) = workshop.submit()
        browser.until(lambda: browser.shows("tasks?", "order") == [str(task)])
        assert time.monotonic() - began < 2.0


def test_right_again_after_redis_was_away(web: Web, valkey: Valkey, workshop: Workshop):
    with page(web, "tasks?") as browser:
        valkey.kill()
        (first,) = workshop.submit()
        browser.until(lambda: browser.shows("tasks?", "order") == [str(first)])
        valkey.start()
        second = web.submit()
        browser.until(lambda: second in browser.shows("tasks?", "order"))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_others_are_kept_out(web: Web, origin: Any):
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{web.port}/live", origin=origin):
        pass
    assert refused.value.response.status_code == 403


def test_another_name_for_this_host_is_kept_out(web: Web):
    uri = f"ws://evil.example:{web.port}/live"
    sock = socket.create_connection(("127.0.0.1", web.port))
    with pytest.raises(InvalidStatus) as refused, connect(uri, sock=sock):
        pass
    assert refused.value.response.status_code == 403


def test_our_own_pages_are_let_in(web: Web):
    uri, origin = f"ws://127.0.0.1:{web.port}/live", f"http://127.0.0.1:{web.port}"
    with connect(uri, origin=origin) as socket:  # type: ignore[arg-type]  # a NewType of str
        assert json.loads(socket.recv(5))["stale"] is None


def test_there_is_no_other_socket(web: Web):
    with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{web.port}/other"):
        pass


@pytest.mark.parametrize(
    "message",
    [
        '{"subscribe": ["nothing"]}',
        '{"subscribe": ["tasks?state=odd"]}',
        '{"subscribe": ["task:1"]}',
        "junk",
        "[" * 9000,
    ],
)
def test_what_is_not_understood_is_refused(web: Web, message: str):
    with page(web) as browser:
        browser.socket.send(message)
        browser.until(lambda: any("refused" in said for said in browser.said))
        browser.tell(ping=7)
        browser.until(lambda: {"pong": 7} in browser.said)


def test_a_page_has_so_many_topics(web: Web):
    with page(web) as browser:
        browser.tell(subscribe=[f"task:{uuid4()}" for _ in range(MAX_TOPICS + 1)])
        browser.until(lambda: any("refused" in said for said in browser.said))


def test_a_page_that_does_not_keep_up_is_sent_no_more_and_then_the_whole(web: Web, workshop: Workshop):
    with page(web, "tasks?", acknowledges=False) as browser, page(web, "tasks?") as other:
        task = ""
        for _ in range(WINDOW + 4):
            task = web.submit()
            other.until(lambda task=task: task in other.shows("tasks?", "order"))
        with pytest.raises(TimeoutError):
            browser.until(lambda: False, 0.5)
        assert len(browser.updates) <= WINDOW
        assert task not in browser.shows("tasks?", "order")
        browser.tell(ack=len(browser.updates))
        browser.until(lambda: task in browser.shows("tasks?", "order"))
        assert browser.updates[-1]["full"]


def test_output_is_passed_on_as_it_is_printed(web: Web, valkey: Valkey):
    task = uuid4()
    topic = f"log:{task}"
    link = SyncLink(valkey.url)
    link.call(mirror.printed(task, 1, b"before\n", 0))

    def prints(data: bytes) -> None:
        link.call([*mirror.printed(task, 1, data, 3), mirror.announce_printed([task])])

    with page(web, topic) as browser:
        assert [chunk["data"] for chunk in browser.shows(topic, "chunks")] == ["YmVmb3JlCg=="]
        began = time.monotonic()
        prints(b"now\n")
        browser.until(lambda: browser.updates[-1]["parts"]["chunks"][-1]["data"] == "bm93Cg==")
        assert time.monotonic() - began < 0.5
        assert browser.updates[-1] == {
            "topic": topic, "full": False, "parts": {"chunks": [{"attempt": 1, "data": "bm93Cg==", "dropped": 3}]},
            "gone": [],
        }  # fmt: skip
        with page(web, topic) as late:
            assert len(late.shows(topic, "chunks")) == 2
            prints(b"later\n")
            late.until(lambda: len(late.updates) == 2)
            browser.until(lambda: len(browser.updates) == 3)
            assert late.updates[-1] == browser.updates[-1]
    link.close()


def test_stopping_closes_pages_and_asks_them_to_come_again(tmp_path: Any, backend: Any, database: str):
    with web_process(tmp_path, database_url=backend.url) as web, page(web, "overview") as browser:
        web.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            browser.until(lambda: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == RESTART
        assert web.process.wait(5) == 0


def test_uvicorn_serves_it_as_well(tmp_path: Any, backend: Any, database: str):
    command = ("-m", "uvicorn", "main:app", "--port", "{port}", "--log-level", "warning")
    with web_process(tmp_path, *command, database_url=backend.url) as web, page(web, "tasks?") as browser:
        task = web.submit()
        browser.until(lambda: browser.shows("tasks?", "order") == [task])


@pytest.mark.parametrize("path", ["/", "/tasks/", "/tasks/?state=failed", "/workers/", "/functions/"])
def test_pages_are_served_with_a_first_look(web: Web, path: str):
    answer = web.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


def test_a_task_and_its_function_have_pages(web: Web):
    task = web.submit()
    answer = web.get(f"/tasks/{task}/")
    assert answer.status_code == 200
    assert f'"id": "{task}"' in answer.text
    function = web.get("/functions/").text.partition("/functions/0")[2][:35]
    assert web.get(f"/functions/0{function}/").status_code == 200
    assert web.get(f"/search?q={task}", allow_redirects=False).headers["Location"] == f"/tasks/{task}/"
    assert web.get("/search?q=func", allow_redirects=False).headers["Location"] == "/functions/?q=func"
    assert "function" in web.get("/functions/?q=func").text


def test_what_is_not_there_says_so(web: Web):
    assert web.get(f"/tasks/{UUID(int=1)}/").status_code == 404
    assert web.get(f"/functions/{UUID(int=1)}/").status_code == 404
    assert web.get("/tasks/?state=odd", allow_redirects=False).status_code == 302
    assert web.get("/tasks/?upto=odd", allow_redirects=False).status_code == 302


def test_stored_output_can_be_read_and_downloaded(web: Web, workshop: Workshop):
    claimed = workshop.running()
    with committed() as cursor:
        kept = report(output_head=b"<b>head</b>", output_tail=b"tail", output_dropped=5)
        moves.end(cursor, [ended(claimed, report=kept)])
    path = f"/tasks/{claimed.task}/output?attempt=1"
    assert web.get(path).json() == {"head": "PGI+aGVhZDwvYj4=", "tail": "dGFpbA==", "dropped": 5}
    file = web.get(f"{path}&download=1")
    assert file.content == b"<b>head</b>\n[5 bytes between are not kept]\ntail"
    assert file.headers["Content-Type"] == "application/octet-stream"
    assert web.get(f"/tasks/{claimed.task}/output?attempt=2").status_code == 404

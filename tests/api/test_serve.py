"""The web process as a process: how it starts, and that its end loses nothing."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import threading
import time
from http.client import HTTPConnection, HTTPException

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from api.models import Task
from tests.live import serialize, until
from tests.web import Answer, Web, on_sqlite, web_process

pytestmark = on_sqlite


@pytest.fixture
def settings(database, backend):
    return {"database_url": backend.url}


def test_a_stop_answers_who_waits(settings, tmp_path):
    with web_process(tmp_path, **settings) as web:
        task = web.submit()
        answers = [Answer(web, "GET", f"/result/{task}?wait=30") for _ in range(20)]
        until(lambda: established(web) >= 20)
        web.get("/healthz")
        began = time.monotonic()
        assert web.stop() == 0
        assert time.monotonic() - began < 3
        assert [answer.wait() for answer in answers] == [200] * 20
        assert {answer.body["status"] for answer in answers} == {"QUEUED"}


def established(web: Web) -> int:
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return sum(row[1].endswith(f":{web.port:04X}") and row[3] == "01" for row in rows[1:])


class Client(threading.Thread):
    """Submits one after the other on one connection until it is refused, and keeps what it was told."""

    def __init__(self, web: Web, function: str) -> None:
        super().__init__()
        self.accepted: list[str] = []
        self.statuses: set[int] = set()
        self._connection = HTTPConnection("127.0.0.1", web.port, timeout=30)
        self._body = json.dumps({"function_id": function, "payload": serialize(((1,), {}))})
        self.start()

    def run(self) -> None:
        try:
            while True:
                self._connection.request("POST", "/execute_function", self._body, {"Content-Type": "application/json"})
                response = self._connection.getresponse()
                body = json.loads(response.read())
                self.statuses.add(response.status)
                if response.status == 201:
                    self.accepted.append(body["task_id"])
                elif response.status != 503:
                    return
        except (OSError, HTTPException):
            return
        finally:
            self._connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_amid_submits_keeps_every_promise(settings, tmp_path, number):
    with web_process(tmp_path, **settings) as web:
        function = web.register()
        clients = [Client(web, function) for _ in range(16)]
        until(lambda: all(len(client.accepted) >= 5 for client in clients))
        assert web.stop(number) == 0
        for client in clients:
            client.join(10)
            assert client.statuses <= {201, 503}
    stored = {str(task) for task in Task.objects.values_list("id", flat=True)}
    assert {task for client in clients for task in client.accepted} == stored


def test_a_stop_while_the_database_is_locked_refuses_and_ends_in_time(settings, tmp_path, backend):
    with web_process(tmp_path, shutdown_s=3, **settings) as web:
        function = web.register()
        other = sqlite3.connect(backend.settings["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        body = {"function_id": function, "payload": serialize(((1,), {}))}
        first = Answer(web, "POST", "/execute_function", body)
        until(lambda: established(web) >= 2)
        began = time.monotonic()
        assert web.stop() == 0
        assert time.monotonic() - began < 3.5
        assert first.wait() == 503
        other.close()
    assert not Task.objects.exists()


def test_a_second_signal_ends_at_once(settings, tmp_path, backend):
    with web_process(tmp_path, shutdown_s=30, **settings) as web:
        function = web.register()
        other = sqlite3.connect(backend.settings["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        body = {"function_id": function, "payload": serialize(((1,), {}))}
        web_socket = HTTPConnection("127.0.0.1", web.port)
        web_socket.request("POST", "/execute_function", json.dumps(body), {"Content-Type": "application/json"})
        until(lambda: established(web) >= 2)
        web.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in web.log.read_text())
        assert web.stop() == 128 + signal.SIGTERM
        web_socket.close()
        other.close()


def test_it_says_where_it_listens(settings, tmp_path):
    with web_process(tmp_path, **settings) as web:
        until(lambda: f"listening on {web.url}" in web.log.read_text())


def test_uvicorn_serves_it_as_well(settings, tmp_path):
    command = ("-m", "uvicorn", "main:app", "--port", "{port}", "--log-level", "warning")
    with web_process(tmp_path, *command, **settings) as web:
        task = web.submit()
        assert web.get(f"/result/{task}?wait=0.1").json()["status"] == "QUEUED"
        assert web.get("/readyz").json()["checks"]["database"] == "ok"
        assert web.get("/status/x").status_code == 404
        big = web.post("/execute_function", data=bytes(17 * 1024**2), headers={"Content-Type": "application/json"})
        assert big.status_code == 413
        assert web.stop() in (0, -signal.SIGTERM)
    assert Task.objects.filter(id=task).exists()


def test_a_large_body_is_refused_before_it_is_sent(settings, tmp_path):
    with web_process(tmp_path, **settings) as web, socket.create_connection(("127.0.0.1", web.port)) as client:
        head = "POST /execute_function HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {10**12}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_websocket_is_refused_and_everything_goes_on(settings, tmp_path):
    with web_process(tmp_path, **settings) as web:
        for _ in range(3):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://127.0.0.1:{web.port}/other")
            assert refused.value.response.status_code == 403
        assert web.get("/healthz").ok
        assert "ERROR" not in web.log.read_text()


def test_what_the_server_itself_refuses_has_our_form(settings, tmp_path):
    with web_process(tmp_path, **settings) as web, socket.create_connection(("127.0.0.1", web.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nA: \x0b\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"


def test_two_requests_in_one_packet_are_answered_in_order(settings, tmp_path):
    with web_process(tmp_path, **settings) as web, socket.create_connection(("127.0.0.1", web.port)) as client:
        request = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(request % b"healthz" + request % b"status/x")
        received = b""
        while received.count(b"HTTP/1.1") < 2 or not received.endswith(b"}"):
            received += client.recv(65536)
        assert received.index(b"HTTP/1.1 200") < received.index(b"HTTP/1.1 404")

import math
import os
import socket

from appliance.pulses import Pulses
from everythingfaas.alive import EVERY_S, PULSE_S, Pulse, SignOfLife


def test_the_file_is_touched_now_and_then(tmp_path):
    path = tmp_path / "alive"
    alive = SignOfLife(path)
    alive.give(100.0)
    assert path.exists()
    os.utime(path, (0, 0))
    alive.give(100.0 + EVERY_S / 2)
    assert path.stat().st_mtime == 0
    alive.give(100.0 + EVERY_S)
    assert path.stat().st_mtime > 0


def test_nobody_need_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SignOfLife(None).give(1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_touched_stops_nothing(tmp_path, caplog):
    SignOfLife(tmp_path / "no folder" / "alive").give(1.0)
    assert "cannot be touched" in caplog.text


def test_a_pulse_is_felt_now_and_then_and_says_whose_it_is():
    pulses = Pulses()
    try:
        pulse = Pulse({"NOTIFY_SOCKET": pulses.address})
        assert pulse.due == 0.0
        assert pulses.read() == []
        pulse.give(100.0)
        pulse.give(100.0 + PULSE_S / 2)
        assert pulse.due == 100.0 + PULSE_S
        assert pulses.read() == [os.getpid()]
        pulse.give(100.0 + PULSE_S)
        assert pulses.read() == [os.getpid()]
    finally:
        pulses.close()
    pulse.give(200.0)  # nobody listens any more


def test_a_pulse_is_what_systemd_expects(tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        Pulse({"NOTIFY_SOCKET": str(path)}).give(1.0)
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_without_a_listener_no_pulse_is_due():
    pulse = Pulse({})
    pulse.give(1.0)
    assert pulse.due == math.inf

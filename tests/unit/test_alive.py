import os

from everythingfaas.alive import EVERY_S, SignOfLife


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

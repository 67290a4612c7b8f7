import os

from appliance.logs import RotatingLog


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_lines_are_appended_to_what_an_earlier_run_wrote(tmp_path):
    (tmp_path / "web.log").write_bytes(b"earlier\n")
    log = RotatingLog(tmp_path / "web.log")
    log.write(b"now\n")
    log.close()
    assert contents(tmp_path) == {"web.log": b"earlier\nnow\n"}


def test_three_files_are_kept_and_no_line_is_torn(tmp_path):
    log = RotatingLog(tmp_path / "web.log", max_bytes=1000, files=3)
    text = b"".join(b"line %06d\n" % number for number in range(1000))
    for start in range(0, len(text), 77):  # pieces as a pipe gives them: without regard to lines
        log.write(text[start : start + 77])
    log.close()
    found = contents(tmp_path)
    assert sorted(found) == ["web.log", "web.log.1", "web.log.2"]
    kept = found["web.log.2"] + found["web.log.1"] + found["web.log"]
    assert text.endswith(kept)
    assert kept.startswith(b"line ")
    assert all(len(part) <= 1000 + 77 for part in found.values())
    assert all(part.endswith(b"\n") for part in found.values())


def test_the_size_of_an_earlier_run_counts(tmp_path):
    (tmp_path / "web.log").write_bytes(b"x" * 999 + b"\n")
    log = RotatingLog(tmp_path / "web.log", max_bytes=1000)
    log.write(b"first\n")
    log.write(b"second\n")
    log.close()
    assert contents(tmp_path)["web.log"].endswith(b"second\n")
    assert "web.log.1" in contents(tmp_path)


def test_one_endless_line_is_cut_at_last(tmp_path):
    log = RotatingLog(tmp_path / "web.log", max_bytes=1000, files=2)
    for _ in range(100):
        log.write(b"x" * 100)
    log.close()
    assert sum(len(part) for part in contents(tmp_path).values()) <= 5000


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path):
    os.symlink("/dev/full", tmp_path / "web.log")
    log = RotatingLog(tmp_path / "web.log")
    log.write(b"lost\n")
    log.close()


def test_a_folder_that_comes_back_is_written_to_again(tmp_path):
    log = RotatingLog(tmp_path / "gone" / "web.log")
    log.write(b"lost\n")
    (tmp_path / "gone").mkdir()
    log.write(b"kept\n")
    log.close()
    assert contents(tmp_path / "gone") == {"web.log": b"kept\n"}


def test_tail(tmp_path):
    log = RotatingLog(tmp_path / "web.log")
    assert log.tail(3) == []
    log.write(b"".join(b"line %d\n" % number for number in range(1000)))
    log.close()
    assert log.tail(3) == ["line 997", "line 998", "line 999"]

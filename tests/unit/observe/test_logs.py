import errno
import logging

import pytest

from peer.observe import logs


@pytest.fixture(autouse=True)
def _restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


def test_records_go_to_the_file(tmp_path):
    path = tmp_path / "ctpeer.log"
    logs.set_up(path, "info", terminal=True)
    logging.getLogger("x").info("hello %s", "there")
    logging.getLogger("x").debug("not this")
    assert "INFO hello there" in path.read_text()
    assert "not this" not in path.read_text()


@pytest.mark.parametrize(("terminal", "lines"), [(True, 0), (False, 1)])
def test_stderr_has_them_too_unless_a_live_view_is_there(tmp_path, capsys, terminal, lines):
    logs.set_up(tmp_path / "ctpeer.log", "info", terminal=terminal)
    logging.getLogger("x").info("hello")
    assert capsys.readouterr().err.count("hello") == lines


def test_the_file_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_FILE_BYTES", 1000)
    logs.set_up(tmp_path / "ctpeer.log", "info", terminal=True)
    for i in range(500):
        logging.getLogger("x").info("line %d", i)
    files = list(tmp_path.iterdir())
    assert len(files) == 5
    assert all(file.stat().st_size <= 1000 for file in files)


def test_a_full_disk_costs_the_record_and_nothing_else(tmp_path, capsys, monkeypatch):
    path = tmp_path / "ctpeer.log"
    handler = logs.PatientFileHandler(path, delay=True)

    def full(_text):
        raise OSError(errno.ENOSPC, "No space left on device")

    record = logging.LogRecord("x", logging.INFO, "f", 1, "hello", None, None)
    handler.emit(record)
    monkeypatch.setattr(handler.stream, "write", full)
    handler.emit(record)
    handler.close()
    assert capsys.readouterr().err == ""

import pytest

from peer.daemon.keepsakes import load_history, save_history
from peer.observe.history import History


def test_curves_survive_on_the_disk(tmp_path):
    path, history = tmp_path / "history.json", History()
    history.loss.add(1, 2.5)
    save_history(path, "run", history)
    assert load_history(path, "run").shown() == history.shown()


def test_another_run_begins_with_no_curves(tmp_path):
    path, history = tmp_path / "history.json", History()
    history.loss.add(1, 2.5)
    save_history(path, "run", history)
    assert load_history(path, "other").shown() == History().shown()


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"{}"])
def test_junk_on_the_disk_is_as_good_as_nothing(tmp_path, junk):
    path = tmp_path / "history.json"
    path.write_bytes(junk)
    assert load_history(path, "run").shown() == History().shown()


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    save_history(tmp_path / "missing" / "history.json", "run", History())
    assert "the curves were not kept" in caplog.text

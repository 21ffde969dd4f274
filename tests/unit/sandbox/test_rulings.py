from peer.config.home import Home
from peer.sandbox.rulings import read_row


def test_a_peer_that_has_not_fetched_its_run_yet_holds_to_no_verdict(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    assert read_row(home, "shakespeare-0123") == ()
    home.run_path("shakespeare-0123").mkdir()
    assert read_row(home, "shakespeare-0123") == ()

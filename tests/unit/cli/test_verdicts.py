"""`ctpeer verdicts` and `ctpeer validators` on a home with verdicts of real peers."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save

from peer.checkpoint.initial import initial_root
from peer.cli.main import main
from peer.config.home import Home
from peer.identity import Identity
from peer.run.directory import RunDirectory, add_blob
from peer.run.manifest import ValidationSection
from peer.validation.archive import Archive
from peer.validation.rules import Rules
from peer.validation.score import Losses
from peer.validation.ticket import in_order
from peer.validation.verdict import Tip, Verdict

EVERY = 5
TENSORS = {"w": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32)}


@pytest.fixture(scope="module")
def peers(identities, tmp_path_factory):
    """Nine peers, which make seven seats and two reserves."""
    folder = tmp_path_factory.mktemp("validators")
    more = [Identity.load_or_create(folder / f"{i}.key") for i in range(5)]
    return [*identities, *more]


@pytest.fixture(scope="module")
def founded(manifest, tmp_path_factory):
    """Return the home of a run that has its initial state and no verdict; do not change it."""
    home = Home(tmp_path_factory.mktemp("founded"))
    fresh = home.path / "fresh"
    fresh.mkdir()
    changes = {
        "initial_state": add_blob(fresh, save(TENSORS)),
        "validation": ValidationSection(every_epochs=EVERY),
    }
    run = RunDirectory.create(fresh, manifest.model_copy(update=changes))
    home.runs_path.mkdir()
    fresh.rename(home.run_path(run.run_id))
    home.last_run_path.write_text(run.run_id)
    return home


def run_of(home):
    (run_id,) = home.run_ids()
    return RunDirectory.open(home.run_path(run_id))


def rules_of(run):
    return Rules.of(run.run_id, run.manifest.validation)


def scores(points):
    baseline = tuple(30_000 + points * i for i in range(8))
    return Losses(baseline, baseline)


CHAPTERS = [
    (-123, None),
    (2000, None),
    (-100, {0: scores(900), 1: None}),
    (0, {place: scores(500 * place + 300) for place in range(5)}),
]


@pytest.fixture(scope="module")
def story(founded, peers, make_verdict):
    """Return four verdicts: good, bad, one liar and one that stayed away, too few that agree."""
    run = run_of(founded)
    rules, row = rules_of(run), []
    tip = Tip.genesis(run.run_id, initial_root(run))
    for worse, said in CHAPTERS:
        verdict, tip = make_verdict(tip, peers, worse, said=said, rules=rules)
        row.append(verdict)
    return row


@pytest.fixture
def home(founded, story, tmp_path):
    """Return a home on which the story lies."""
    copy = Home(shutil.copytree(founded.path, tmp_path / "home"))
    archive = archive_of(copy)
    for verdict in story:
        archive.keep(verdict)
    return copy


def archive_of(home):
    return Archive(run_of(home).verdicts_path)


@pytest.fixture
def ctpeer(home, monkeypatch):
    monkeypatch.setenv("CTPEER_HOME", str(home.path))
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def asked(ctpeer, home):
    def run(*arguments, code=0):
        result = ctpeer(*arguments, "--json")
        assert result.exit_code == code, result.output
        body = json.loads(result.stdout)
        assert (body["schema"], body["run_id"]) == (1, run_of(home).run_id)
        return body

    return run


# ---- verdicts


def test_verdicts_are_listed_newest_first_with_what_they_led_to(asked, story):
    body = asked("verdicts")
    assert [each["round"] for each in body["verdicts"]] == [4, 3, 2, 1]
    assert [each["hash"] for each in body["verdicts"]] == [
        verdict.judgement.hash for verdict in reversed(story)
    ]
    newest, third, second, first = body["verdicts"]
    assert [each["decision"] for each in (first, second, third, newest)] == [
        "accept",
        "reject",
        "accept",
        "inconclusive",
    ]
    assert first["difference_nats"] == pytest.approx(-0.0123)
    assert first["error_nats"] == 0.0
    assert (first["epoch"], second["epoch"], third["epoch"]) == (5, 10, 10)
    assert second["last_good"] == first["last_good"]
    assert second["generation"] == body["generation"] == 1
    assert body["last_good"] == third["last_good"]
    assert body["last_good"] == {"epoch": 10, "state_root": third["candidate"]}
    assert (first["roster"], first["quorum"], first["ground"]) == (9, 5, "genesis")
    assert (body["verified"], body["problem"]) == (None, None)
    assert len(first["called"]) == len(first["signers"]) == 9


def test_who_disagreed_is_struck_and_where_nobody_agrees_there_is_no_number(asked, peers):
    newest, third, *_ = asked("verdicts")["verdicts"]
    assert third["struck"] == [peers[0].peer_id]
    assert peers[1].peer_id not in third["cluster"]
    assert third["metrics"] == {"accuracy": 0.25}
    assert newest["reason"] == "too few validators agree on its loss"
    assert newest["difference_nats"] is newest["error_nats"] is None
    assert (newest["cluster"], newest["metrics"]) == ([], {})


def test_a_verdict_is_a_line_for_a_person(ctpeer, peers, story):
    lines = ctpeer("verdicts").stdout.splitlines()
    assert len(lines) == 5
    first = story[0].judgement.candidate[:12]
    assert (
        lines[3].split()
        == (
            f"round 1 epoch 5 {first} accept: not worse than the baseline -0.0123 +- 0.0000 nats"
            " signed by 9 of 9"
        ).split()
    )
    assert lines[1].endswith(f"struck {peers[0].peer_id}")
    assert "inconclusive: too few validators agree on its loss" in lines[0]
    assert "nats" not in lines[0]
    assert lines[4].startswith("last good is epoch 10, ")
    assert lines[4].endswith("of generation 1")


def test_no_more_are_read_than_asked_for(asked, home, story):
    damage(home, story[0])
    body = asked("verdicts", "-n", 2)
    assert [each["round"] for each in body["verdicts"]] == [4, 3]
    assert body["problem"] is None
    assert asked("verdicts", "-n", 2, "--verify", code=78)["problem"]


def test_an_honest_chain_verifies_to_its_beginning(asked, ctpeer):
    body = asked("verdicts", "--verify", "-n", 1)
    assert (body["verified"], body["problem"], len(body["verdicts"])) == (True, None, 1)
    assert len(body["notes"]) == 1
    assert "\nverified: 4 verdicts\n" in ctpeer("verdicts", "--verify").stdout


def test_a_chain_that_was_joined_later_verifies_with_a_note(asked, ctpeer, home, story):
    joined = archive_of(home)
    shutil.rmtree(joined.folder)
    for verdict in story[2:]:
        joined.keep(verdict)
    body = asked("verdicts", "--verify")
    assert body["verified"]
    assert "the chain begins with verdict 3" in body["notes"][1]
    assert "note: the chain begins with verdict 3" in ctpeer("verdicts", "--verify").stdout


def damage(home, verdict):
    (path,) = archive_of(home).folder.glob(f"*-{verdict.judgement.hash}.json")
    path.write_bytes(path.read_bytes()[:-10])
    return path


def test_a_damaged_file_is_named_and_what_came_after_it_is_shown(asked, ctpeer, home, story):
    path = damage(home, story[1])
    body = asked("verdicts")
    assert [each["round"] for each in body["verdicts"]] == [4, 3]
    assert str(path) in body["problem"]
    body = asked("verdicts", "--verify", code=78)
    assert body["verified"] is False
    result = ctpeer("verdicts", "--verify")
    assert result.exit_code == 78
    assert result.stderr == f"ctpeer: the verdict in {path} cannot be read; delete it\n"
    assert "verified" not in result.stdout
    path.unlink()
    assert asked("verdicts", "--verify")["verified"]


def test_a_tip_of_junk_is_said(asked, home):
    (archive_of(home).folder / "tip").write_bytes(b"../../etc/passwd")
    assert "names no verdict" in asked("verdicts")["problem"]
    assert asked("verdicts", "--verify", code=78)["verdicts"] == []


@pytest.mark.parametrize("place", [0, 3])
def test_a_changed_judgement_has_exit_code_78_and_its_reason(asked, ctpeer, home, story, place):
    archive = archive_of(home)
    shutil.rmtree(archive.folder)
    for verdict in story[:place]:
        archive.keep(verdict)
    lie = story[place].judgement.model_copy(update={"error_points": 7})
    lie.__dict__.pop("hash", None)
    archive.keep(Verdict(judgement=lie, assents=story[place].assents))
    result = ctpeer("verdicts", "--verify")
    assert result.exit_code == 78
    assert result.stderr == (
        f"ctpeer: verdict {place + 1} is refused: "
        "its error_points does not follow from its evidence\n"
    )
    assert ctpeer("verdicts").exit_code == 0
    assert asked("verdicts")["verdicts"][0]["signers"] == []


def test_signatures_that_are_not_good_have_exit_code_78(ctpeer, asked, home, story):
    few = Verdict(judgement=story[3].judgement, assents=story[3].assents[:4])
    archive_of(home).keep(few)
    result = ctpeer("verdicts", "--verify")
    assert result.exit_code == 78
    assert "verdict 4 is refused: 4 of those called signed it, 5 must" in result.stderr
    assert "signed by 4 of 9" in result.stdout


def test_an_initial_state_that_was_changed_proves_nothing(asked, home):
    run = run_of(home)
    path = run.blob_path(run.manifest.initial_state)
    path.write_bytes(path.read_bytes() + b"0")
    assert "was changed" in asked("verdicts", "--verify", code=78)["problem"]
    path.unlink()
    body = asked("verdicts", "--verify", code=78)
    assert (body["verified"], len(body["verdicts"])) == (False, 4)
    assert "the initial state" in body["problem"]
    assert asked("verdicts")["problem"] is None


def test_verdicts_of_another_initial_state_are_refused(asked, home, peers, make_verdict):
    run, archive = run_of(home), archive_of(home)
    shutil.rmtree(archive.folder)
    other, _ = make_verdict(Tip.genesis(run.run_id, "ab" * 32), peers, rules=rules_of(run))
    archive.keep(other)
    assert "verdict 1 is refused" in asked("verdicts", "--verify", code=78)["problem"]


@pytest.mark.parametrize(("count", "word"), [(1, "lone peer"), (4, "small swarm")])
def test_small_swarms_are_marked(asked, ctpeer, home, peers, make_verdict, count, word):
    run, archive = run_of(home), archive_of(home)
    tip = Tip.genesis(run.run_id, initial_root(run))
    verdict, _ = make_verdict(tip, peers[:count], rules=rules_of(run))
    archive.keep(verdict)
    body = asked("verdicts", "--verify")
    (only,) = body["verdicts"]
    assert (only["small_swarm"], only["lone_peer"]) == (True, count == 1)
    assert body["verified"]
    assert ctpeer("verdicts").stdout.splitlines()[0].endswith(word)
    assert f" ({word})\n" in ctpeer("validators").stdout


def test_without_a_verdict_yet_it_says_when_there_will_be_one(asked, ctpeer, home):
    shutil.rmtree(archive_of(home).folder)
    body = asked("verdicts", "--verify")
    assert (body["verdicts"], body["last_good"], body["generation"]) == ([], None, 0)
    assert body["verified"]
    for command in ("verdicts", "validators"):
        assert "the first candidate is the checkpoint of epoch 5" in ctpeer(command).stdout
    body = asked("validators")
    assert (body["validators"], body["committee"], body["next_round"]) == ([], None, 1)
    assert not archive_of(home).folder.exists()


def test_where_validation_is_off_that_is_said(asked, ctpeer, home, monkeypatch):
    off = ValidationSection.model_construct(every_epochs=0, margin=0.05)
    run = run_of(home)
    shutil.rmtree(archive_of(home).folder)
    monkeypatch.setattr(run, "manifest", run.manifest.model_copy(update={"validation": off}))
    monkeypatch.setattr("peer.cli.kept.choose_run", lambda name, home: run)
    for command in ("verdicts", "validators"):
        assert ctpeer(command).stdout.startswith(f"validation is off in {run.run_id}")
        assert asked(command)["every_epochs"] == 0
    assert asked("verdicts", "--verify")["verified"] is None


def test_a_run_is_chosen_by_its_id_or_its_directory_a_backups_as_well(asked, home, tmp_path):
    run = run_of(home)
    backup = shutil.copytree(run.path, tmp_path / "backup")
    (backup / "verdicts" / "tip").unlink()
    assert len(asked("verdicts", "--run", run.run_id)["verdicts"]) == 4
    assert len(asked("verdicts", "--run", run.path)["verdicts"]) == 4
    assert asked("verdicts", "--run", backup)["verdicts"] == []
    shutil.rmtree(backup / "verdicts")
    assert len(asked("verdicts", "--run", backup)["verdicts"]) == 4


def test_what_makes_no_sense_is_refused_in_a_sentence(ctpeer):
    for command in ("verdicts", "validators"):
        result = ctpeer(command, "--run", "/nowhere")
        assert result.exit_code == 78
        assert "there is no run at /nowhere" in result.stderr
    assert ctpeer("verdicts", "-n", 0).exit_code == 2


# ---- validators


def test_validators_are_counted_over_the_kept_chain(asked, peers):
    body = asked("validators")
    by_peer = {each["peer_id"]: each for each in body["validators"]}
    assert set(by_peer) == {peer.peer_id for peer in peers}
    assert (body["next_round"], body["verdicts"]) == (5, 4)
    liar, absent, honest = (by_peer[peers[i].peer_id] for i in (0, 1, 8))
    # Nothing of a rejected candidate counts, and of the last one nobody's score is wrong.
    assert honest["epochs"] == 3 * EVERY
    assert (honest["scored"], honest["agreed"], honest["agreement"]) == (3, 3, 1.0)
    assert (liar["scored"], liar["agreed"], liar["strikes"]) == (3, 2, [3])
    assert (absent["scored"], absent["agreed"], absent["strikes"]) == (2, 2, [])
    assert all(each["called"] == 4 for each in by_peer.values())
    assert sum(each["sat"] for each in by_peer.values()) == 4 * 7
    assert all(each["eligible"] and each["remark"] is None for each in by_peer.values())
    assert body["this_peer"] is None


def test_the_last_committee_has_its_places_in_the_order_of_its_lots(asked, story):
    committee = asked("validators")["committee"]
    judgement = story[-1].judgement
    tickets = in_order(seat.ticket for seat in judgement.seats)
    assert [each["peer_id"] for each in committee["called"]] == [t.peer_id for t in tickets]
    places = [each["place"] for each in committee["called"]]
    assert places[2] == "validator 3 of 7"
    assert places[7:] == ["reserve 1 of 2", "reserve 2 of 2"]
    assert {each["did"] for each in committee["called"]} == {"too few agree"}
    assert (committee["quorum"], committee["small_swarm"]) == (5, False)


def test_what_each_of_the_committee_did_is_said(asked, home, story, peers):
    archive_of(home).keep(story[2])
    committee = asked("validators")["committee"]
    did = {each["peer_id"]: each for each in committee["called"]}
    assert (did[peers[0].peer_id]["did"], did[peers[0].peer_id]["struck"]) == (
        "does not agree",
        True,
    )
    assert did[peers[1].peer_id]["did"] == "did not score"
    assert did[peers[8].peer_id]["did"] == "agreed"
    assert all(each["signed"] for each in committee["called"])
    seated = peers[1].peer_id in story[2].judgement.called[:7]
    assert [each["stood_in"] for each in committee["called"]] == [False] * 7 + [seated, False]


def test_this_peer_is_marked_and_listed_even_if_no_verdict_knows_it(asked, ctpeer, home, peers):
    own = Identity.load_or_create(home.identity_path).peer_id
    body = asked("validators")
    (mine,) = [each for each in body["validators"] if each["this_peer"]]
    assert mine["peer_id"] == body["this_peer"] == own
    assert (mine["eligible"], mine["agreement"]) == (False, None)
    assert mine["remark"] == "no verdict counts a contribution of it yet"
    assert f"{own} (this peer)" in ctpeer("validators").stdout
    home.identity_path.write_bytes(b"junk")
    assert asked("validators")["this_peer"] is None


def test_validators_are_tables_for_a_person(ctpeer, peers):
    lines = ctpeer("validators").stdout.splitlines()
    assert lines[0] == "round 5: 9 of 9 may sit"
    assert lines[1].split()[:4] == ["peer", "epochs", "called", "sat"]
    liar = next(line for line in lines if line.startswith(peers[0].peer_id))
    assert liar.split()[1:3] == ["15", "4"]
    assert liar.split()[4:] == ["67%", "3", "yes"]
    assert lines[12].startswith("round 4: inconclusive of epoch 15, ")
    assert lines[12].endswith(", by a quorum of 5")
    assert lines[13].startswith("validator 1 of 7  ")


def test_no_identity_is_made_by_looking(ctpeer, home):
    assert ctpeer("validators").exit_code == 0
    assert not home.identity_path.exists()


@pytest.mark.parametrize("arguments", ["verdicts", "verdicts --verify", "validators"])
def test_with_verdicts_to_look_at_neither_torch_nor_hivemind_is_loaded(home, arguments):
    code = (
        "import sys, atexit;"
        "atexit.register(lambda: print(*{m.split('.')[0] for m in sys.modules}, file=sys.stderr));"
        "from peer.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()],
        env=os.environ | {"CTPEER_HOME": str(home.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "round 4" in done.stdout
    loaded = set(done.stderr.split())
    assert "peer" in loaded
    assert not {"torch", "transformers", "hivemind"} & loaded

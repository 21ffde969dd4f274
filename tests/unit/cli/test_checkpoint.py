"""`ctpeer checkpoint` on the home of a real run."""

import hashlib
import itertools
import json
import shutil

import pytest
from click.testing import CliRunner

from peer.checkpoint.shelf import Shelf
from peer.cli.main import main
from peer.errors import CtpeerError
from peer.run.canonical import canonical
from peer.run.canonical import run_id as run_id_of
from peer.run.directory import RunDirectory
from peer.run.invite import Invite, dump_invite

COMMANDS = ("list", "show", "log", "verify", "gc")


@pytest.fixture
def ctpeer(home, monkeypatch):
    """Run `ctpeer checkpoint` in this process on the trained home."""
    monkeypatch.setenv("CTPEER_HOME", str(home.path))

    def run(*arguments):
        return CliRunner().invoke(main, ["checkpoint", *map(str, arguments)])

    return run


@pytest.fixture
def asked(ctpeer):
    """Run a command with --json; return what it prints, which holds no NaN."""

    def run(*arguments, code=0):
        result = ctpeer(*arguments, "--json")
        assert result.exit_code == code, result.output

        def refuse(word):
            raise AssertionError(word)

        body = json.loads(result.stdout, parse_constant=refuse)
        assert body["schema"] == 1
        assert body["run_id"].startswith("poems-")
        return body

    return run


@pytest.fixture
def shelf(home):
    (run_id,) = home.run_ids()
    return Shelf(RunDirectory.open(home.run_path(run_id)).checkpoints_path)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_list_is_newest_first_with_scores_and_authors(asked, ctpeer):
    found = asked("list")["checkpoints"]
    assert [one["epoch"] for one in found] == [7, 5, 4]
    assert all(one["here"] and one["problem"] is None for one in found)
    assert {"bits_per_byte", "loss", "perplexity"} == set(found[0]["scores"])
    lines = ctpeer("list").stdout.splitlines()
    assert [line[:12] for line in lines] == [one["state_root"][:12] for one in found]


def test_show_explains_the_newest_and_any_other(asked, ctpeer):
    newest = asked("show")
    assert newest["epoch"] == 7
    assert newest["certificate"]["group"] == newest["certificate"]["signers"] == [newest["author"]]
    older = asked("list")["checkpoints"][2]
    assert asked("show", older["state_root"][:9])["epoch"] == 4
    text = ctpeer("show").stdout
    assert newest["state_root"] in text
    assert "signed by 1 of a group of 1" in text


def test_the_log_goes_back_behind_what_was_dropped(asked, ctpeer):
    lineage = asked("log")["lineage"]
    assert [one["epoch"] for one in lineage] == [7, 5, 4, 2]
    assert [one["here"] for one in lineage] == [True, True, True, False]
    for child, parent in itertools.pairwise(lineage):
        assert child["parent"] == {"epoch": parent["epoch"], "state_root": parent["state_root"]}
        assert child["loss_terms"] >= 64 * (child["epoch"] - parent["epoch"])
    text = ctpeer("log").stdout
    assert text.count("\ncheckpoint ") == 3
    assert "(dropped)" in text
    assert "Author: " in text
    assert text.splitlines()[-1].startswith("before that: ")


def test_a_short_log_says_how_much_it_leaves_out(asked, ctpeer):
    body = asked("log", "-n", 2)
    assert ([one["epoch"] for one in body["lineage"]], body["more"]) == ([7, 5], 2)
    assert ctpeer("log", "-n", 2).stdout.endswith("and 2 more\n")


def test_an_honest_home_verifies(asked, ctpeer):
    body = asked("verify")
    assert body["good"]
    assert [one["problems"] for one in body["checkpoints"]] == [[], [], []]
    assert "is good: 4 chunks" in ctpeer("verify").stdout


@pytest.mark.parametrize("file", ["state.safetensors", "local.safetensors", "annotation.json"])
def test_damage_has_exit_code_78_and_its_reason(asked, ctpeer, shelf, file):
    name = shelf.names()[1]
    flip(shelf.path(name) / file)
    body = asked("verify", code=78)
    assert [one["good"] for one in body["checkpoints"]] == [True, False, True]
    result = ctpeer("verify", name.partition("-")[2])
    assert result.exit_code == 78
    assert f"ctpeer: {name}: " in result.stderr
    assert ctpeer("verify", "newest").exit_code == 0


def test_a_damaged_head_is_listed_and_verified_as_damaged(asked, ctpeer, shelf):
    name = shelf.names()[0]
    flip(shelf.path(name) / "checkpoint.json")
    assert asked("list")["checkpoints"][0]["problem"]
    assert "damaged: " in ctpeer("list").stdout
    assert asked("verify", name.partition("-")[2], code=78)["checkpoints"][0]["state_root"] is None
    assert [one["epoch"] for one in asked("log", shelf.names()[1][11:])["lineage"]] == [5, 4, 2]


def test_gc_follows_the_settings_and_says_why(asked, ctpeer, home, shelf):
    home.settings_path.write_text("[checkpoint]\nkeep = 1\n")
    dry = asked("gc", "--dry-run")
    assert len(shelf.names()) == 3
    body = asked("gc")
    assert {**body, "dry_run": True} == dry
    assert [one["dropped"] for one in body["checkpoints"]] == [False, True, True]
    assert body["freed_bytes"] > 0
    assert [name[:10] for name in shelf.names()] == ["0000000007"]
    assert [one["epoch"] for one in asked("log")["lineage"]] == [7, 5, 4, 2]
    assert ctpeer("gc").stdout.endswith("0 dropped, 0 bytes\n")


def test_gc_keeps_the_newest_that_loads_and_what_is_held(asked, home, shelf):
    home.settings_path.write_text("[checkpoint]\nkeep = 1\n")
    seven, five, four = shelf.names()
    flip(shelf.path(seven) / "state.safetensors")
    with shelf.hold(four):
        asked("gc")
        assert shelf.names() == [seven, five, four]
    asked("gc")
    assert shelf.names() == [seven, five]


def test_gc_drops_damaged_ones_when_asked(asked, shelf):
    seven, five, four = shelf.names()
    shelf.path(seven).rename(shelf.folder / f"damaged-{seven}")
    flip(shelf.path(five) / "checkpoint.json")
    asked("gc")
    assert len(shelf.damaged()) == 1
    asked("gc", "--damaged")
    assert (shelf.damaged(), shelf.names()) == ([], [four])


def test_gc_drops_nothing_where_nothing_loads(ctpeer, shelf):
    for name in shelf.names():
        flip(shelf.path(name) / "state.safetensors")
    result = ctpeer("gc")
    assert result.exit_code == 78
    assert "nothing was dropped" in result.stderr
    assert len(shelf.names()) == 3


def test_an_export_opens_and_is_committed(asked, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, repository = tmp_path / "out", tmp_path / "repo"
    seven, five, _ = [one["state_root"] for one in asked("list")["checkpoints"]]
    body = asked("export", five[:8], out, "--git", repository)
    assert body["state_root"] == five
    assert {path.name for path in out.iterdir()} == set(body["files"])
    assert body["git"]["fresh"]
    model = AutoModelForCausalLM.from_pretrained(out)
    tokens = AutoTokenizer.from_pretrained(out)("Let the", return_tensors="pt")
    assert len(model.generate(**tokens, max_new_tokens=3)[0]) > 0
    later = asked("export", "newest", "--git", repository)
    assert (later["state_root"], later["path"]) == (seven, None)
    assert later["git"]["fresh"]
    assert later["git"]["commit"] != body["git"]["commit"]
    again = asked("export", seven, "--git", repository)
    assert again["git"] == later["git"] | {"fresh": False}


def test_an_export_says_in_words_what_it_did(ctpeer, tmp_path):
    result = ctpeer("export", "newest", tmp_path / "out", "--licence", "mit")
    assert result.exit_code == 0
    assert result.stdout.startswith("exported ")
    assert 'license: "mit"' in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "zz"), 2, "is no state root"),
        (("show", "0" * 64), 2, "there is no checkpoint"),
        (("log", "-n", "0"), 2, "-n"),
        (("verify", "0" * 64), 2, "`ctpeer checkpoint list` shows those"),
        (("list", "--run", "/nowhere"), 78, "there is no run at /nowhere"),
        (("export", "newest"), 2, "give a DIRECTORY"),
        (("export", "0" * 64, "out"), 2, "there is no checkpoint"),
        (("export", "newest", "/tmp"), 78, "/tmp is there already and not empty"),
        (("export", "newest", "/dev/null"), 78, "/dev/null is there already"),
        (("export", "newest", "--git", "/tmp"), 78, "/tmp is there and no git repository"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(ctpeer, arguments, code, words):
    result = ctpeer(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_on_a_fresh_home_there_is_nothing_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("CTPEER_HOME", str(tmp_path / "fresh"))
    run = CliRunner().invoke
    assert "there is no checkpoint of shakespeare-" in run(main, ["checkpoint", "list"]).stdout
    for command in ("show", "log", "export newest x"):
        result = run(main, ["checkpoint", *command.split()])
        assert result.exit_code == 78
        assert "`ctpeer start` writes one" in result.stderr
    for command in ("verify", "gc"):
        assert run(main, ["checkpoint", command]).exit_code == 0
    assert not (tmp_path / "fresh").exists()


def test_a_run_is_chosen_by_its_id_or_its_directory_a_backups_as_well(asked, home, tmp_path):
    (run_id,) = home.run_ids()
    backup = shutil.copytree(home.run_path(run_id), tmp_path / "backup")
    shutil.rmtree(backup / "checkpoints" / Shelf(backup / "checkpoints").names()[0])
    assert len(asked("list", "--run", run_id)["checkpoints"]) == 3
    assert len(asked("list", "--run", home.run_path(run_id))["checkpoints"]) == 3
    assert len(asked("list", "--run", backup)["checkpoints"]) == 2
    shutil.rmtree(backup / "checkpoints")
    assert len(asked("list", "--run", backup)["checkpoints"]) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_dropped_while_a_command_looks_is_left_out(asked, shelf, monkeypatch, command):
    """The daemon drops a checkpoint between a command's listing and its reading."""
    names, real = shelf.names(), Shelf.annotation

    def annotation(self, name):
        if name == names[-1]:
            shutil.rmtree(self.path(name), ignore_errors=True)
        return real(self, name)

    monkeypatch.setattr(Shelf, "annotation", annotation)
    assert asked(command)


def test_scores_that_are_no_number_are_printed_as_json(asked, shelf):
    """Whatever is in the files, what is printed is JSON."""
    path = shelf.path(shelf.names()[0]) / "annotation.json"
    path.write_bytes(path.read_bytes().replace(b'"loss":', b'"loss":NaN,"was":'))
    found = asked("list")["checkpoints"][0]
    assert found["problem"] == "the annotation cannot be read"
    assert found["scores"] == {}


@pytest.fixture
def fetched(shelf):
    """Make the newest checkpoint one that was fetched by hand, without papers; return its name."""
    name = shelf.names()[0]
    path = shelf.path(name) / "checkpoint.json"
    head = json.loads(path.read_text()) | {"local": None, "certificate": None, "writer": None}
    head.pop("digest")
    head["digest"] = hashlib.sha256(canonical(head)).hexdigest()
    path.write_text(json.dumps(head))
    for file in ("local.safetensors", "annotation.json"):
        (shelf.path(name) / file).unlink()
    return name


def test_a_fetched_one_is_shown_as_such_verifies_and_is_exported(asked, ctpeer, fetched, tmp_path):
    found = asked("list")["checkpoints"]
    assert [one["fetched"] for one in found] == [True, False, False]
    assert ctpeer("list").stdout.splitlines()[0].endswith("fetched")
    text = ctpeer("show").stdout
    assert "training does not go on from it" in text
    assert [line.split()[1] for line in text.splitlines() if line[:4] in ("cert", "anno")] == [
        "none",
        "none",
    ]
    (report,) = asked("verify", "newest")["checkpoints"]
    assert (report["good"], report["signers"], len(report["notes"])) == (True, [], 3)
    assert [one["epoch"] for one in asked("log")["lineage"]] == [7]
    assert asked("export", "newest", tmp_path / "out")["files"]


def test_gc_drops_what_was_fetched_when_asked(asked, shelf, fetched):
    outcome = asked("gc")["checkpoints"][0]
    assert (outcome["name"], outcome["dropped"]) == (fetched, False)
    assert outcome["reason"] == "fetched by hand; `gc --fetched` drops it"
    assert fetched in shelf.names()
    asked("gc", "--fetched")
    assert fetched not in shelf.names()
    assert len(shelf.names()) == 2


NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("zz",), 2, "'zz' is no state root"),
        (("newest", "--timeout", "0"), 2, "--timeout"),
        (("newest", "--invite", "nonsense"), 2, "is not an invite"),
        (("newest", "--peers", "nonsense"), 78, "is no address of a peer"),
        (("newest", "--run", "/nowhere"), 78, "there is no run at /nowhere"),
        (("newest",), 78, "name one with --peers ADDRESS"),
    ],
)
def test_a_fetch_that_makes_no_sense_is_refused_in_a_sentence(ctpeer, arguments, code, words):
    result = ctpeer("fetch", *arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_an_invite_to_another_run_is_refused(ctpeer):
    invite = dump_invite(Invite.of("other-" + "0" * 32, [NOBODY]))
    result = ctpeer("fetch", "--invite", invite)
    assert result.exit_code == 2
    assert "the invite is to other-0" in result.stderr


def test_a_peer_that_cannot_be_reached_is_named(ctpeer):
    result = ctpeer("fetch", "newest", "--peers", NOBODY, "--timeout", "1")
    assert result.exit_code == 1
    assert f"could be reached ({NOBODY}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_peer_that_is_given_is_asked_beside_those_of_the_settings(ctpeer, home, monkeypatch):
    other, requests = NOBODY.replace("/9/", "/10/"), []

    def run_fetch(_here, _home, request):
        requests.append(request)
        raise CtpeerError("enough")

    monkeypatch.setattr("peer.cli.checkpoint.run_fetch", run_fetch)
    home.settings_path.write_text(f'[swarm]\npeers = ["{NOBODY}"]\n')
    ctpeer("fetch", "newest", "--peers", other)
    ctpeer("fetch", "newest")
    assert [one.settings.peers for one in requests] == [(other, NOBODY), (NOBODY,)]


def test_a_run_that_is_not_in_the_home_is_named(ctpeer, home, tmp_path):
    (run_id,) = home.run_ids()
    elsewhere = shutil.move(home.run_path(run_id), tmp_path / "elsewhere")
    shutil.rmtree(elsewhere / "checkpoints")
    result = ctpeer("fetch", "newest", "--run", elsewhere)
    assert result.exit_code == 78
    assert f"the run {run_id} is not in the home" in result.stderr


def test_where_nobody_validates_no_state_is_good(ctpeer, home):
    (run_id,) = home.run_ids()
    run = RunDirectory.open(home.run_path(run_id))
    section = run.manifest.validation.model_copy(update={"every_epochs": 0})
    manifest = run.manifest.model_copy(update={"validation": section})
    other = shutil.copytree(run.path, run.path.with_name(run_id_of(manifest)))
    RunDirectory.create(other, manifest)
    result = ctpeer("fetch", "good", "--run", other.name)
    assert result.exit_code == 2
    assert "nobody validates" in result.stderr


def test_a_state_that_is_here_needs_no_peer(asked, ctpeer):
    root = asked("show")["state_root"]
    body = asked("fetch", root)
    assert (body["fresh"], body["state_root"], body["donors"]) == (False, root, [])
    assert "is here already, and good" in ctpeer("fetch", root).stdout

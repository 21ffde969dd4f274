"""Exports become commits, and whatever git refuses leaves the repository as it was."""

import os
import subprocess

import pytest

from peer.checkpoint.lineage import Entry
from peer.checkpoint.repository import Repository, commit_message
from peer.errors import ConfigurationError

WHEN_S = 1_700_000_000.0


@pytest.fixture(autouse=True)
def plain_git(monkeypatch, tmp_path):
    """Let git know nobody, whatever this machine's configuration says."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in list(os.environ):
        if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER")) or name == "EMAIL":
            monkeypatch.delenv(name)


@pytest.fixture
def git(tmp_path):
    def run(*arguments, at="repo"):
        done = subprocess.run(
            ["git", "-C", str(tmp_path / at), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def commit(tmp_path):
    """Commit an export of some files, by name and content."""

    def make(message="epoch 1\n\nabc\n", repository=None, **files):
        folder = tmp_path / "export"
        folder.mkdir(exist_ok=True)
        names = {name.replace("_", "."): content for name, content in files.items()}
        listed = ", ".join(f'"{name}": ""' for name in [*names, "ctpeer.json"])
        names["ctpeer.json"] = f'{{"files": {{{listed}}}}}'
        for name, content in names.items():
            (folder / name).write_text(content)
        made = repository or Repository(tmp_path / "repo")
        return made.commit(folder, dict.fromkeys(names, ""), message, WHEN_S)

    return make


def test_a_new_repository_gets_one_commit(commit, git):
    made = commit(a_txt="1", b_txt="2")
    assert made.fresh
    assert git("rev-parse", "HEAD") == made.commit_id
    assert git("log", "--format=%s|%at|%an") == f"epoch 1|{int(WHEN_S)}|ctpeer"
    assert git("ls-files").split() == ["a.txt", "b.txt", "ctpeer.json"]
    assert git("status", "--porcelain") == ""
    assert git("branch", "--show-current") == "main"


def test_a_second_export_is_a_second_commit_and_stale_files_go(commit, git, tmp_path):
    commit(a_txt="1", b_txt="2")
    (tmp_path / "repo" / "NOTES").write_text("mine")
    git("add", "NOTES")
    git("-c", "user.name=me", "-c", "user.email=me@x", "commit", "-qm", "mine")
    commit("epoch 2\n", a_txt="3", c_txt="4")
    assert git("log", "--format=%s").splitlines() == ["epoch 2", "mine", "epoch 1"]
    assert git("ls-files").split() == ["NOTES", "a.txt", "c.txt", "ctpeer.json"]
    assert (tmp_path / "repo" / "a.txt").read_text() == "3"


def test_the_same_export_again_is_no_commit(commit, git):
    first = commit(a_txt="1")
    again = commit(a_txt="1")
    assert (again.commit_id, again.fresh) == (first.commit_id, False)
    assert git("rev-list", "--count", "HEAD") == "1"


def test_what_the_repository_ignores_is_committed_all_the_same(commit, git, tmp_path):
    commit(a_txt="1")
    (tmp_path / "repo" / ".gitignore").write_text("*.txt\n")
    git("add", ".gitignore")
    git("-c", "user.name=me", "-c", "user.email=me@x", "commit", "-qm", "ignore")
    assert commit("epoch 2\n", b_txt="2").fresh
    assert "b.txt" in git("ls-files")


def test_a_committer_that_git_knows_is_kept(commit, git, tmp_path):
    (tmp_path / "gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    commit(a_txt="1")
    assert git("log", "--format=%an %ae") == "Ada ada@example.org"


def test_a_repository_within_another_one_is_its_own(commit, git, tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=20)
    commit(a_txt="1")
    assert git("rev-parse", "--show-toplevel") == str(tmp_path / "repo")


def test_gits_own_variables_lead_nowhere_else(commit, git, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True, timeout=20)
    with monkeypatch.context() as patch:
        patch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
        patch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / ".git" / "index"))
        commit(a_txt="1")
    assert git("rev-list", "--count", "HEAD") == "1"
    assert git("rev-list", "--count", "--all", at="other") == "0"


def test_a_directory_of_other_things_is_refused(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "mine").write_text("")
    with pytest.raises(ConfigurationError, match="is there and no git repository"):
        Repository(tmp_path / "repo")
    assert [path.name for path in (tmp_path / "repo").iterdir()] == ["mine"]


def test_changes_that_are_not_committed_are_refused(commit, tmp_path):
    commit(a_txt="1")
    (tmp_path / "repo" / "a.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not committed; commit or stash them"):
        Repository(tmp_path / "repo")
    assert (tmp_path / "repo" / "a.txt").read_text() == "mine"


def test_without_git_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no git on this machine; install it"):
        Repository(tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_what_a_hook_refuses_leaves_the_repository_as_it_was(commit, git, tmp_path, first):
    repository = Repository(tmp_path / "repo")
    if not first:
        commit(a_txt="1", b_txt="2")
    hook = tmp_path / "repo" / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no weights here >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"git commit in .* failed: no weights here"):
        commit("epoch 2\n", repository=repository, a_txt="3", c_txt="4")
    assert git("status", "--porcelain") == ""
    assert git("ls-files").split() == ([] if first else ["a.txt", "b.txt", "ctpeer.json"])
    kept = {path.name for path in (tmp_path / "repo").iterdir()} - {".git"}
    assert kept == (set() if first else {"a.txt", "b.txt", "ctpeer.json"})


@pytest.mark.parametrize(
    "word", ['{"files": {"../../x": ""}}', '{"files": 5}', "[]", "{", '{"files": {".git": ""}}']
)
def test_a_strange_list_of_files_removes_nothing(commit, git, tmp_path, word):
    (tmp_path / "x").write_text("mine")
    commit(a_txt="1")
    (tmp_path / "repo" / "ctpeer.json").write_text(word)
    git("-c", "user.name=me", "-c", "user.email=me@x", "commit", "-qam", "strange")
    assert commit("epoch 2\n", b_txt="2").fresh
    assert (tmp_path / "x").read_text() == "mine"
    assert (tmp_path / "repo" / "a.txt").exists()


def test_a_message_without_annotations_is_one_all_the_same():
    entry = Entry(epoch=3, name="0000000003-ab", head=None, annotation=None)
    message = commit_message("tiny-" + "0" * 32, [entry])
    assert message.startswith("tiny: epoch 3, generation None\n\n")
    assert "Parent: unknown" in message

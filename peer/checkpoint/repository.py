"""Committing an export to a git repository, by the git that is installed.

Each export is one commit, whose message holds the lineage. Files of the export before that are no
longer in this one go; other files in the repository stay as they are.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from peer.checkpoint.card import lineage_lines
from peer.checkpoint.export import PROVENANCE
from peer.checkpoint.lineage import Entry
from peer.errors import ConfigurationError

_TIMEOUT_S = 600.0
_BRANCH = "main"
_FOREIGN = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"}
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclasses.dataclass(frozen=True)
class Commit:
    """A commit that holds an export.

    Attributes:
        commit_id: Its name in git.
        fresh: Whether it was made now; False where the repository held just this already.
    """

    commit_id: str
    fresh: bool


class Repository:
    """A git repository at `path`, made if nothing is there.

    Raises:
        ConfigurationError: There is no git, `path` holds something else, or changes in it are not
            committed.
    """

    def __init__(self, path: Path) -> None:
        executable = shutil.which("git")
        if executable is None:
            raise ConfigurationError(
                "there is no git on this machine; install it, or export without --git"
            )
        self._git = executable
        self.path = path.absolute()
        if not (self.path / ".git").exists():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ConfigurationError(
                    f"{self.path} is there and no git repository; give a new directory, or make it "
                    "one with `git init`"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            self._run("init", "--quiet", f"--initial-branch={_BRANCH}")
        if self._run("status", "--porcelain"):
            raise ConfigurationError(
                f"there are changes in {self.path} that are not committed; commit or stash them "
                "first"
            )

    def commit(
        self, export: Path, files: Mapping[str, str], message: str, when_s: float | None
    ) -> Commit:
        """Make the files of an export the repository's, in one commit.

        Args:
            export: The directory that holds them; they are moved away from there.
            files: Their names, with their hashes.
            message: The commit's.
            when_s: The author's date, in Unix seconds: when the checkpoint was written; None for
                now.

        Raises:
            ConfigurationError: git refuses; the repository is as it was.
        """
        stale = self._exported() - files.keys()
        for name in stale:
            (self.path / name).unlink(missing_ok=True)
        for name in files:
            shutil.move(export / name, self.path / name)
        try:
            self._run("add", "--force", "--", *files)
            if stale:
                self._run("rm", "--quiet", "--cached", "--ignore-unmatch", "--", *sorted(stale))
            if not self._run("status", "--porcelain", "--untracked-files=no"):
                return Commit(self._run("rev-parse", "HEAD"), fresh=False)
            dated = [f"--date={int(when_s)} +0000"] if when_s is not None else []
            identity = self._name_if_nameless()
            self._run(*identity, "commit", "--quiet", *dated, "-F", "-", text=message)
        except ConfigurationError:
            self._restore(files)
            raise
        return Commit(self._run("rev-parse", "HEAD"), fresh=True)

    def _exported(self) -> set[str]:
        """Return the files of the export that the repository holds, by its own word."""
        try:
            body = json.loads((self.path / PROVENANCE).read_text(encoding="utf-8"))
            return {name for name in body["files"] if _FILE.fullmatch(name)}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return set()

    def _name_if_nameless(self) -> Sequence[str]:
        """Return a committer where git knows none, so that an export needs no configuration."""
        try:
            self._run("var", "GIT_COMMITTER_IDENT")
        except ConfigurationError:
            return ("-c", "user.name=ctpeer", "-c", "user.email=ctpeer@localhost")
        return ()

    def _restore(self, files: Mapping[str, str]) -> None:
        """Take back what could not be committed; everything in the repository was committed."""
        try:
            self._run("reset", "--quiet", "--hard")
        except ConfigurationError:  # there is no commit yet
            self._run("rm", "--quiet", "--force", "--cached", "--ignore-unmatch", "--", *files)
            for name in files:
                (self.path / name).unlink(missing_ok=True)

    def _run(self, *arguments: str, text: str | None = None) -> str:
        """Run git in the repository; return what it prints.

        Raises:
            ConfigurationError: It fails.
        """
        # Where git itself called us, its variables would lead to another repository.
        environment = {name: v for name, v in os.environ.items() if name not in _FOREIGN}
        try:
            done = subprocess.run(
                [self._git, "-C", str(self.path), *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                env=environment,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigurationError(f"git in {self.path} does not answer: {error}") from error
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split()) or f"code {done.returncode}"
            verb = next(a for a in arguments if not a.startswith("-") and "=" not in a)
            raise ConfigurationError(f"git {verb} in {self.path} failed: {said}")
        return done.stdout.strip()


def commit_message(run_id: str, lineage: Sequence[Entry]) -> str:
    """Return what a commit of the first state in `lineage` says, with trailers for machines."""
    entry = lineage[0]
    name = run_id.rpartition("-")[0]
    parent = entry.parent.state_root if entry.parent is not None else "unknown"
    author = entry.annotation.writer if entry.annotation is not None else "unknown"
    return "\n".join(
        [
            f"{name}: epoch {entry.epoch}, generation {entry.generation}",
            "",
            *lineage_lines(lineage),
            "",
            f"Run: {run_id}",
            f"State-Root: {entry.state_root}",
            f"Parent: {parent}",
            f"Written-By: {author}",
            "",
        ]
    )

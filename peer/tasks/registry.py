"""The tasks by name. A further task is one more file and one more line here."""

import difflib
from collections.abc import Callable, Mapping

from peer.errors import ConfigurationError
from peer.run.manifest import TaskSection
from peer.tasks.causal_lm import CausalLM
from peer.tasks.masked_lm import MaskedLM
from peer.tasks.task import Task

TASKS: dict[str, Callable[[TaskSection, Mapping[str, bytes]], Task]] = {
    task.name: task for task in (CausalLM, MaskedLM)
}


def create(section: TaskSection, tokenizer_files: Mapping[str, bytes]) -> Task:
    """Return the task that a manifest names.

    Raises:
        ConfigurationError: There is none of that name, or its options or its tokenizer do not fit.
    """
    task = TASKS.get(section.name)
    if task is None:
        close = difflib.get_close_matches(section.name, TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(TASKS))}"
        raise ConfigurationError(f"there is no task {section.name!r}; {hint}")
    return task(section, tokenizer_files)

"""Work that goes on beside other work, and may not die without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have all of `work` go on for as long as the body does.

    An exception in any of it ends the body and the rest of the work, and is raised in their place.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        # What comes after the first one follows from it: the rest is cancelled.
        raise errors.exceptions[0] from None

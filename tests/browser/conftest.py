"""Pages in a real browser, fed by stand-ins for a supervisor and an exporter."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest
from aiohttp import web

# Tests are no package: what several modules of them need is found beside this file.
sys.path.append(str(Path(__file__).parent))

from chromium import chromium, open_page, picture, watch

__all__ = ["chromium", "open_page", "picture", "watch"]


@pytest.fixture
def serve():
    """Return what serves an application on a free port, in a thread, and gives its address."""
    loop, ended, threads = asyncio.new_event_loop(), asyncio.Event(), []

    def start(app):
        urls, started = [], threading.Event()

        async def run():
            runner = web.AppRunner(app, shutdown_timeout=1.0)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            started.set()
            await ended.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
        thread.start()
        threads.append(thread)
        assert started.wait(10)
        return urls[0]

    yield start
    loop.call_soon_threadsafe(ended.set)
    for thread in threads:
        thread.join(10)
    loop.close()

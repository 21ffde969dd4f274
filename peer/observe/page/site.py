"""The pages' files over HTTP, and the guard around everything that a page asks for."""

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib import resources
from pathlib import PurePath
from typing import Any

from aiohttp import web

from peer.observe.page.front import assemble
from peer.observe.page.guard import HEADERS, refuse_host, refuse_key, refuse_origin

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Provide = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns what a page shows, as JSON has it."""

_FRAME = "frame.html"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


@dataclasses.dataclass(frozen=True)
class Asset:
    """A file of the pages, and what a browser is told of it."""

    body: bytes
    content_type: str
    etag: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
    """What a listener asks of requests.

    Attributes:
        key: What opens more than the pages' own files; None where all that is told is public.
        loopback_only: Whether only loopback names are answered to.
    """

    key: str | None
    loopback_only: bool = True

    def refuse(self, request: web.Request, *, files: bool = False) -> str | None:
        """Return why `request` is refused, or None; for `files` nobody needs a key."""
        if self.loopback_only and (refusal := refuse_host(request.headers)):
            return refusal
        if files:
            return None
        if self.key is not None and (refusal := refuse_key(request.headers, self.key)):
            return refusal
        return refuse_origin(request.headers) if request.method == "POST" else None

    def around(self, handler: Handler, *, files: bool = False) -> Handler:
        """Return `handler` for those requests that are not refused."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            refusal = self.refuse(request, files=files)
            if refusal is not None:
                body = {"error": refusal}
                response: web.StreamResponse = web.json_response(body, status=HTTPStatus.FORBIDDEN)
            else:
                response = await handler(request)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return guarded


def load_assets() -> dict[str, Asset]:
    """Return the pages' files by name; of HTML, the whole pages."""
    folder = resources.files(__package__) / "assets"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    scripts = {name: body.decode() for name, body in files.items() if name.endswith(".js")}
    frame = files.pop(_FRAME).decode()
    for name, body in files.items():
        if name.endswith(".html"):
            script = f"{name.removesuffix('.html')}.js"
            files[name] = assemble(frame, body.decode(), script, scripts).encode()
    return {
        name: Asset(body, _TYPES[suffix], hashlib.sha256(body).hexdigest()[:32])
        for name, body in files.items()
        if (suffix := PurePath(name).suffix) in _TYPES
    }


def add_files(app: web.Application, guard: Guard, front: str) -> None:
    """Have `app` serve the pages' files; the one named `front` at its root."""
    assets = load_assets()

    async def page(request: web.Request) -> web.Response:
        return _answer(request, assets[front])

    async def asset(request: web.Request) -> web.Response:
        found = assets.get(request.match_info["name"])
        if found is None:
            return web.json_response({"error": "there is no such file"}, status=404)
        return _answer(request, found)

    app.router.add_get("/", guard.around(page, files=True))
    app.router.add_get("/assets/{name}", guard.around(asset, files=True))


def add_view(app: web.Application, guard: Guard, path: str, provide: Provide) -> None:
    """Have `app` serve at `path` what `provide` returns: the JSON that a page asks for again."""

    async def view(_request: web.Request) -> web.Response:
        text = json.dumps(await provide(), separators=(",", ":"), allow_nan=False)
        return web.Response(text=text, content_type="application/json")

    app.router.add_get(path, guard.around(view))


def _answer(request: web.Request, asset: Asset) -> web.Response:
    headers = {"Cache-Control": "no-cache", "ETag": f'"{asset.etag}"'}
    if any(tag.value == asset.etag for tag in request.if_none_match or ()):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return web.Response(
        body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers
    )

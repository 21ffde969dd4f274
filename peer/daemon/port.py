"""The port of the last start, taken again at the next: invites and caches name it."""

import contextlib
import json
import socket
from collections.abc import Iterable
from pathlib import Path

from peer.config.address import parse_address
from peer.run.directory import write_atomically


def same_port(listen: Iterable[str], path: Path) -> tuple[str, ...]:
    """Return `listen` with a port 0 replaced by the one of the last start, where it is free."""
    try:
        port = int(json.loads(path.read_text())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return tuple(listen)
    chosen = []
    for address in listen:
        parsed = parse_address(address)
        if (
            parsed is not None
            and parsed.port == 0
            and "/tcp/" in address
            and _free(parsed.ip, port)
        ):
            chosen.append(address.replace("/tcp/0", f"/tcp/{port}", 1))
        else:
            chosen.append(address)
    return tuple(chosen)


def keep_port(addresses: Iterable[str], path: Path) -> None:
    """Remember the port of `addresses` at `path`, as well as that can be done."""
    ports = [a.port for a in map(parse_address, addresses) if a is not None and not a.relayed]
    if ports:
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps({"port": ports[0]}).encode())


def _free(ip: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family) as probe, contextlib.suppress(OSError, OverflowError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((ip, port))
        return True
    return False

"""The founders' detached signatures: who vouches for a manifest, outside its hash."""

import base64
import json

from pydantic import TypeAdapter

from peer.errors import ConfigurationError
from peer.identity import Identity, peer_id_of, verify
from peer.run.canonical import manifest_hash
from peer.run.directory import RunDirectory
from peer.run.manifest import Manifest

_PREFIX = b"ctpeer founder\n"


def sign_manifest(manifest: Manifest, founder: Identity) -> str:
    """Return the text of a signature file by one founder."""
    signature = founder.sign(_statement(manifest))
    entry = {
        "peer_id": founder.peer_id,
        "public_key": base64.b64encode(founder.public_key).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    return json.dumps([entry], indent=1) + "\n"


def signers(manifest: Manifest, text: str) -> tuple[str, ...]:
    """Return the founders of `manifest` whose good signatures `text` holds.

    Raises:
        ConfigurationError: `text` is no signature file, or a signature in it is not good.
    """
    found: list[str] = []
    try:
        for entry in TypeAdapter(list[dict[str, str]]).validate_json(text):
            key = base64.b64decode(entry["public_key"], validate=True)
            peer_id = peer_id_of(key)
            if not verify(key, base64.b64decode(entry["signature"]), _statement(manifest)):
                raise ConfigurationError(
                    f"the signature of {peer_id} is not over this manifest: it or the manifest "
                    "was changed; get the run again from its founder"
                )
            if peer_id in manifest.founders:
                found.append(peer_id)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            "run.sig is not a signature file; get the run again from its founder"
        ) from error
    return tuple(dict.fromkeys(found))


def signers_of(run: RunDirectory) -> tuple[str, ...]:
    """Return the founders whose good signatures lie beside the manifest of `run`.

    Raises:
        ConfigurationError: What lies there is no signature file, or a signature is not good.
    """
    text = run.signatures()
    return signers(run.manifest, text) if text is not None else ()


def _statement(manifest: Manifest) -> bytes:
    return _PREFIX + manifest_hash(manifest).encode()

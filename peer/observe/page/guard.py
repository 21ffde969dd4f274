"""Who may ask the page for what: decisions on a request's headers, each refusal in words.

A listener on the loopback interface is reached by more than its owner: by every site that is open
in the browser, by names that a stranger's DNS points at 127.0.0.1 (DNS rebinding), and by other
users of the machine. So the page answers to loopback names alone, tells what it knows only to those
who have the key, and takes commands only from its own origin.
"""

import hmac
import re
from collections.abc import Mapping

KEY_HEADER = "X-Ctpeer-Key"
"""No other site can send it: a browser asks first, and is not told yes (Fetch, CORS preflight)."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer. Trusted Types have the browser itself refuse text that is put in as HTML."""

_LOOPBACK_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def refuse_host(headers: Mapping[str, str]) -> str | None:
    """Return why a request is refused for the name that it was sent to, or None.

    Any port will do: a name is what rebinding gives away, and `ssh -L` may bring another port.
    """
    host = headers.get("Host", "")
    if _LOOPBACK_HOST.fullmatch(host):
        return None
    return (
        f"this page answers to 127.0.0.1, localhost and [::1] only, not to {host[:100]!r}; "
        "from another machine, reach it over ssh -L"
    )


def refuse_origin(headers: Mapping[str, str]) -> str | None:
    """Return why a request is refused for the site that sent it, or None.

    Browsers name the origin of every POST (Fetch, 3.2); what names none is no browser.
    """
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if origin is not None and origin.lower() != f"http://{headers.get('Host', '')}".lower():
        return f"a command came from another site, {origin[:100]!r}: commands come from this page"
    if site is not None and site != "same-origin":
        return f"a command came from another site ({site[:20]}): commands come from this page"
    return None


def refuse_key(headers: Mapping[str, str], key: str) -> str | None:
    """Return why a request is refused for want of the key, or None."""
    given = headers.get(KEY_HEADER, "")
    if hmac.compare_digest(given.encode(errors="replace"), key.encode()):
        return None
    said = "is not this peer's" if given else "is missing"
    return (
        f"the key {said}: open the address of the page as `ctpeer status` prints it, with all that "
        "follows the #"
    )

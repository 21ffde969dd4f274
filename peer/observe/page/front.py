"""A page's HTML: the frame that all pages have, around the parts of its own. Pure.

The parts stand in the page's file, each in a `<template>` with the name that the frame calls it by.
"""

import re
import string
from collections.abc import Mapping

_PART = re.compile(r'<template id="([a-z]+)">\n?(.*?)\n?</template>\n', re.DOTALL)
_IMPORTED = re.compile(r'from "\./([a-z-]+\.js)";')


def assemble(frame: str, parts: str, script: str, scripts: Mapping[str, str]) -> str:
    """Return a page's HTML.

    Args:
        frame: With `$name` where a part of that name goes, and with `$script` and `$modules`.
        parts: The page's file.
        script: The name of the module that the page runs. The browser is told ahead of all that it
            imports, directly or not.
        scripts: Every module's text by its name.
    """
    named = dict(_PART.findall(parts))
    assert not _PART.sub("", parts), "beside the parts there is nothing in a page's file"
    links = [f'<link rel="modulepreload" href="assets/{m}">' for m in _imported(script, scripts)]
    return string.Template(frame).substitute(named, script=script, modules="\n  ".join(links))


def _imported(script: str, scripts: Mapping[str, str]) -> list[str]:
    """Return the names of the modules that `script` imports, directly or not, in order."""
    found: set[str] = set()
    ahead = [script]
    while ahead:
        new = set(_IMPORTED.findall(scripts[ahead.pop()])) - found
        found |= new
        ahead += new
    return sorted(found)

"""Pages made of the frame and their parts."""

import pytest

from peer.observe.page.front import assemble

FRAME = "<head>\n  <script src=$script>\n  $modules\n</head>$main"
PART = '<template id="main">\n<p>What\n</template>\n'


def test_a_part_takes_the_place_of_its_name():
    page = assemble(FRAME, PART, "a.js", {"a.js": ""})
    assert page == "<head>\n  <script src=a.js>\n  \n</head><p>What"


def test_all_that_is_imported_is_loaded_ahead_once_and_circles_end():
    scripts = {
        "a.js": 'import { b } from "./b.js";\nimport { c } from "./c-d.js";\n',
        "b.js": 'import { c } from "./c-d.js";\n',
        "c-d.js": 'import { b } from "./b.js";\n',
        "e.js": "",
    }
    page = assemble("$modules", "", "a.js", scripts)
    assert page.splitlines() == [
        '<link rel="modulepreload" href="assets/b.js">',
        '  <link rel="modulepreload" href="assets/c-d.js">',
    ]


def test_a_part_that_is_missing_or_in_no_template_is_refused():
    with pytest.raises(KeyError, match="main"):
        assemble(FRAME, "", "a.js", {"a.js": ""})
    with pytest.raises(AssertionError, match="beside the parts"):
        assemble(FRAME, PART + "<p>stray", "a.js", {"a.js": ""})

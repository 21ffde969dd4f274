"""The pages' files: all there, nothing foreign in them, and small."""

import re

import pytest

from peer.observe.page.site import load_assets

ASSETS = load_assets()
OURS = [name for name in ASSETS if not name.startswith("uplot")]


@pytest.mark.parametrize("front", ["peer.html", "swarm.html"])
def test_every_file_that_a_page_names_is_there(front):
    text = ASSETS[front].body.decode()
    named = set(re.findall(r'(?:src|href)="assets/([^"]+)"', text))
    assert named
    assert named <= set(ASSETS)


@pytest.mark.parametrize("name", [name for name in OURS if name.endswith(".js")])
def test_every_module_that_is_imported_is_there_and_loaded_ahead(name):
    imported = set(re.findall(r'from "\./([^"]+)"', ASSETS[name].body.decode()))
    assert imported <= set(ASSETS)
    if f"{name.removesuffix('.js')}.html" in ASSETS:
        front = ASSETS[f"{name.removesuffix('.js')}.html"].body.decode()
        assert all(f'modulepreload" href="assets/{module}"' in front for module in imported)


@pytest.mark.parametrize("name", OURS)
def test_no_file_names_another_host_or_makes_html_of_text(name):
    text = ASSETS[name].body.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://\w", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_inline_scripts_and_styles_which_the_policy_forbids_are_not_there():
    for name in ("peer.html", "swarm.html"):
        text = ASSETS[name].body.decode()
        assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", text)


def test_the_charts_come_with_their_licence():
    assert b"MIT License" in ASSETS["uplot-licence.txt"].body
    assert b"v1.6.32" in ASSETS["uplot.js"].body[:100]


def test_all_of_it_is_small():
    assert sum(len(asset.body) for asset in ASSETS.values()) < 150_000

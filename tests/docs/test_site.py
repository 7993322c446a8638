"""The built documentation, opened in a headless Chromium."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from skips import not_installed

from docs import site_checks

for module in ("sphinx", "sphinx_copybutton", "furo", "myst_parser", "sphinx-mathjax-offline", "numba", "playwright"):
    pytest.importorskip(module, reason=not_installed(module))
if site_checks.find_chromium() is None:
    pytest.skip("not installed: chromium, chromium-browser or google-chrome on the PATH", allow_module_level=True)

from docs.blocks import DOCS, PAGES, blocks_of  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Build the site and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "--fail-on-warning", "-d", "doctrees", str(DOCS), "html"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="session")
def browser():
    """Start Chromium."""
    with sync_playwright() as playwright:
        arguments = {"executable_path": site_checks.find_chromium(), "args": site_checks.ARGUMENTS}
        with playwright.chromium.launch(**arguments) as chromium:
            yield chromium


def test_every_page_loads_and_every_link_leads_somewhere(browser, site):
    """Pages have no fault in light or dark mode or on a phone, and request nothing from other machines."""
    assert site_checks.faults_of_site(browser, site) == []


def test_search_finds_a_word_of_the_site(browser, site):
    """The search finds nothing for a word that is not on the site."""
    titles, faults = site_checks.search(browser, site, "momentum")
    assert any("RMSpropGraves" in title for title in titles)
    assert faults == []
    assert site_checks.search(browser, site, "quixotically") == ([], [])


@pytest.mark.parametrize("name", PAGES)
def test_code_is_copied_without_prompts_and_outputs(browser, site, name):
    """The copy button of a block and a selection of all of it copy the same lines, apart from empty lines."""
    pressed, selected = site_checks.copies(browser, site, name.replace(".md", ".html"))
    shown = [block.copied for block in blocks_of(PAGES[name]) if not block.comment.startswith(" not shown: ")]
    # Docstrings on the page have examples too.
    assert Counter(shown) - Counter(pressed) == Counter()
    for text, other in zip(pressed, selected):
        assert ">>>" not in text
        assert [line for line in other.splitlines() if line] == [line for line in text.splitlines() if line]


DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
SOUND = f"""
    <a href="#here">here</a> <a href="other.html#there">there</a> <a href="https://example.org/">elsewhere</a>
    <p id="here">plain</p> <code>\\(</code> <img src="{DOT}" alt="a dot">
    <div style="overflow-x: auto"><p style="width: 900px">wide</p></div>
"""
BROKEN = {
    '<script>console.error("an error")</script>': "console: an error",
    "<script>undefined.error</script>": "script: Cannot read properties",
    '<script src="nothing.js"></script>': "status 404: http://127.0.0.1",
    '<link rel="stylesheet" href="https://example.org/style.css">': "asks another machine: https://example.org/style.css",
    '<script>fetch("https://example.org/data").catch(() => {})</script>': "asks another machine: https://example.org/d",
    '<span class="math">x + 1</span>': "formula is not rendered: x + 1",
    '<span class="math"><mjx-container><g fill="red"></g></mjx-container></span>': "formula is not rendered",
    "<p>the root \\(\\sqrt{x}\\)</p>": "formula is left as text: the root",
    '<img alt="a dot" src="data:image/png;base64,">': "picture does not load",
    f'<img src="{DOT}">': "picture has no text",
    '<a href="nowhere.html">a page</a>': "link leads nowhere: nowhere.html",
    '<a href="#nowhere">a place</a>': "link leads nowhere: index.html#nowhere",
    '<a href="other.html#nowhere">a place</a>': "link leads nowhere: other.html#nowhere",
    '</article><p style="width: 500px">wide</p><article>': "page is 5",
    '<div style="overflow: hidden"><p style="width: 500px">cut off</p></div>': "<p> sticks out: cut off",
    '<p style="color: #999">pale</p>': "contrast of <p",
    "<style>@media (prefers-color-scheme: dark) { p { color: #eee } }</style>": 'contrast of <p class=""> is 1.16',
}


def write_site(folder, body):
    """Write a site of two pages."""
    page = f'<!doctype html><link rel="icon" href="data:,"><article>{body}</article>'
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "other.html").write_text('<article><p id="there">there</p></article>', encoding="utf-8")


def test_a_sound_site_passes(browser, tmp_path):
    """This shows that the sites of the next test fail only because of the added fault."""
    write_site(tmp_path, SOUND)
    assert site_checks.faults_of_site(browser, tmp_path) == []


@pytest.mark.parametrize(("fault", "expected"), BROKEN.items())
def test_each_fault_of_a_site_is_found(browser, tmp_path, fault, expected):
    """Every message is about the added fault."""
    write_site(tmp_path, SOUND + fault)
    faults = site_checks.faults_of_site(browser, tmp_path)
    assert faults
    assert all(found.startswith(f"index.html: {expected}") for found in faults)


@pytest.mark.parametrize(
    ("words", "title"),
    {
        "fp16": "mixed precision",
        "mixed precision": "mixed precision",
        "per-layer": "its own learning rate",
        "learning rate": "learning rate on a schedule",
        "notebook": "Jupyter notebook",
        "jupyter": "Jupyter notebook",
        "troubleshooting": "Troubleshooting",
        "np.sctypes was removed": "Troubleshooting",
        "install": "Install",
        "nan": "Troubleshooting",
        "snapshot writer": "Resume",
        "changelog": "Changelog",
        "cite": "citation",
    }.items(),
)
def test_search_finds_the_page_for_a_word(browser, site, words, title):
    """Readers search for these words."""
    titles, faults = site_checks.search(browser, site, words)
    assert any(title in found for found in titles), titles
    assert faults == []


def test_every_page_is_two_clicks_from_the_first_page(browser, site):
    """Links in the sidebar do not count."""
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert pages - site_checks.reachable(browser, site, 2) == {"search.html", "py-modindex.html"}
    assert "how-to/notebooks.html" in pages - site_checks.reachable(browser, site, 1)

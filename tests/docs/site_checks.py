"""Checks of a built site, made page by page in a headless Chromium."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import threading
from urllib.parse import unquote, urldefrag

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# Disable everything that sends requests to other machines.
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Each script returns the faults of the open page as sentences.
FORMULAS = r"""async () => {
    await window.MathJax?.startup?.promise;
    const faults = [];
    for (const formula of document.querySelectorAll(".math"))
        if (!formula.querySelector("mjx-container") || formula.querySelector("[data-mml-node=merror], [fill=red]"))
            faults.push(`formula is not rendered: ${formula.textContent}`);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const { parentElement: parent, data } = texts.currentNode;
        if (/\\[([]|\$\$/.test(data) && !parent.closest("pre, code, script, style, .math"))
            faults.push(`formula is left as text: ${data.trim()}`);
    }
    return faults;
}"""
PICTURES = r"""async () => {
    const faults = [];
    for (const picture of document.images) {
        picture.loading = "eager";
        await picture.decode().catch(() => {});
        if (!picture.naturalWidth) faults.push(`picture does not load: ${picture.src}`);
        if (!picture.alt.trim()) faults.push(`picture has no text: ${picture.src}`);
    }
    return faults;
}"""
WIDTH = r"""() => {
    const faults = [], width = document.documentElement.clientWidth;
    if (document.scrollingElement.scrollWidth > width)
        faults.push(`page is ${document.scrollingElement.scrollWidth} wide on ${width}`);
    const scrolls = element =>
        element && (/auto|scroll/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
    for (const element of document.querySelectorAll("article *"))
        // The text that is read aloud in place of a formula is invisible.
        if (element.getBoundingClientRect().right > width + 1 && !element.closest("mjx-assistive-mml")
            && element.checkVisibility() && !scrolls(element.parentElement))
            faults.push(`<${element.localName}> sticks out: ${element.textContent.trim().slice(0, 60)}`);
    return faults;
}"""
CONTRAST = r"""() => {
    const parse = color => color.match(/[\d.]+/g).map(Number);
    const luminance = color => {
        const [r, g, b] = color.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        if (!element) return [255, 255, 255];
        const [r, g, b, a = 1] = parse(getComputedStyle(element).backgroundColor);
        return a === 1 ? [r, g, b] : behind(element.parentElement).map((c, i) => (1 - a) * c + a * [r, g, b][i]);
    };
    const faults = new Set();
    const texts = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const { parentElement: element, data } = texts.currentNode;
        if (!data.trim() || element.closest("script, style, svg, mjx-assistive-mml")
            || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
        const [light, dark] = [parse(getComputedStyle(element).color), behind(element)].map(luminance)
            .sort((a, b) => b - a);
        const ratio = (light + 0.05) / (dark + 0.05);
        // WCAG 2.1, level AA, wants 4.5.
        const { localName: name, className } = element;
        if (ratio < 4.5) faults.add(`contrast of <${name} class="${className}"> is ${ratio.toFixed(2)}`);
    }
    return [...faults];
}"""
LINKS = "() => [...document.links].map(link => link.href)"
ANCHORS = "() => [...document.querySelectorAll('[id]')].map(element => element.id)"


def find_chromium():
    """Return the path of a Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder on this machine; yield its address."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def watched(browser, address):
    """Open a tab that may load only from the address; yield it and a list of its faults."""
    faults = []

    def route(route):
        url = route.request.url
        if url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            faults.append(f"asks another machine: {url}")
            route.abort()

    def on_response(response):
        if response.status >= 400:
            faults.append(f"status {response.status}: {response.url}")

    def on_console(message):
        # on_response reports resources that cannot be loaded.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            faults.append(f"console: {message.text}")

    with browser.new_context(viewport=DESKTOP) as context:
        context.route("**/*", route)
        page = context.new_page()
        page.on("response", on_response)
        page.on("console", on_console)
        page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        yield page, faults


def faults_of_site(browser, folder):
    """Return the faults of a folder's pages, checked in light mode on a desktop and in dark mode on a phone."""
    faults, links, anchors = [], [], {}
    with served(folder) as address:
        for path in sorted(folder.rglob("*.html")):
            name = path.relative_to(folder).as_posix()
            with watched(browser, address) as (page, found):
                page.goto(address + name)
                for check in (FORMULAS, PICTURES, CONTRAST):
                    found += page.evaluate(check)
                links += ((name, link) for link in page.evaluate(LINKS))
                anchors[name] = page.evaluate(ANCHORS)
                page.set_viewport_size(PHONE)
                page.emulate_media(color_scheme="dark")
                for check in (WIDTH, CONTRAST):
                    found += page.evaluate(check)
                page.wait_for_load_state("networkidle")
            faults += (f"{name}: {fault}" for fault in found)
    for name, link in links:
        target, anchor = urldefrag(link)
        if target.startswith(address):
            target = unquote(target[len(address) :]).partition("?")[0]
            target += "index.html" if target.endswith("/") or not target else ""
            if not (folder / target).is_file():
                faults.append(f"{name}: link leads nowhere: {target}")
            elif anchor and unquote(anchor) not in anchors.get(target, ()):
                faults.append(f"{name}: link leads nowhere: {target}#{anchor}")
    return faults


def copies(browser, folder, name):
    """Return the texts copied from a page's blocks: by their copy buttons, and by selecting the blocks."""
    pressed, selected = [], []
    with served(folder) as address, watched(browser, address) as (page, _):
        page.context.grant_permissions(["clipboard-read"])
        page.goto(address + name)
        for block in page.locator("div.highlight").all():
            block.locator("button.copybtn").click()
            pressed.append(page.evaluate("navigator.clipboard.readText()"))
            block.locator("pre").evaluate("block => getSelection().selectAllChildren(block)")
            page.keyboard.press("Control+C")
            selected.append(page.evaluate("navigator.clipboard.readText()"))
    return pressed, selected


def search(browser, folder, word):
    """Search for a word from the first page. Return the titles found, and the faults."""
    with served(folder) as address, watched(browser, address) as (page, faults):
        page.goto(address + "index.html")
        page.locator("input[name=q]").first.fill(word)
        page.keyboard.press("Enter")
        # The summary counts "one page" in words, and several pages with a number.
        summary = "document.querySelector('.search-summary')?.textContent"
        page.wait_for_function(f"/\\d|one page|did not match/.test({summary})")
        page.wait_for_load_state("networkidle")
        return page.locator("#search-results li > a").all_inner_texts(), faults


def reachable(browser, folder, clicks):
    """Return the pages at most `clicks` clicks from the first page, by links in the text of pages."""
    found, opened = {"index.html"}, set()
    with served(folder) as address, watched(browser, address) as (page, _):
        for _ in range(clicks):
            for name in sorted(found - opened):
                page.goto(address + name)
                links = page.evaluate("() => [...document.querySelectorAll('article a')].map(link => link.href)")
                found.update(urldefrag(link)[0][len(address) :] for link in links if link.startswith(address))
                opened.add(name)
            found = {name for name in found if name.endswith(".html")}
    return found

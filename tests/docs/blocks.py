"""The README, the pages, and their blocks of code as a reader copies them."""

from __future__ import annotations

import doctest
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in ("_build", "examples", "figures")
}
PROMPT = re.compile(r">>> |\.\.\.(?: |$)|[$>] ")
BLOCK = re.compile(
    r"(?:^<!--(?P<comment>[^\n]*?)(?: -->)?\n\s*)?"
    r"^(?P<indent> *)(?P<fence>```+) *(?P<language>[\w-]+) *\n(?P<text>.*?)^(?P=indent)(?P=fence) *$"
    r"(?:(?=\n\n```text\n(?P<printed>.*?)^``` *$))?",
    re.M | re.S,
)


class Block(NamedTuple):
    """A block of code."""

    language: str
    text: str
    comment: str  # before the block
    printed: str  # in a block of text directly after the block

    @property
    def copied(self):
        """The text that the block's copy button copies: no prompts and no outputs.

        A newline ends it only if it has several lines of Python, so that one Enter runs it.
        """
        lines = self.text.splitlines()
        if any(map(PROMPT.match, lines)):
            lines = [PROMPT.sub("", line, count=1) for line in lines if PROMPT.match(line)]
        text = re.sub(r"\n\Z", "", "\n".join(lines))
        return f"{text}\n" if self.language in ("pycon", "python") and "\n" in text else text

    @property
    def output(self):
        """The output that the page shows. If it differs between machines, a comment before the block gives it."""
        lines = self.text.splitlines()
        if PROMPT.match(lines[0]):
            return "\n".join(line for line in lines if not PROMPT.match(line))
        return self.comment[len(" prints: ") :] if self.comment.startswith(" prints: ") else self.printed

    def is_shown(self, expected, output):
        """Whether an output is as expected, apart from `...`, whitespace, and numbers if a comment says so."""
        if self.comment.startswith(" numbers differ: "):
            expected, output = (re.sub(r"\d[\d.,]*", "0", text) for text in (expected, output))
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        return doctest.OutputChecker().check_output(expected.strip() + "\n", output.strip() + "\n", flags)


def blocks_of(page, *languages):
    """Return a page's blocks of code in the languages, or in all languages if none is given."""
    blocks = []
    for match in BLOCK.finditer(page):
        text = textwrap.dedent(match["text"])
        blocks.append(Block(match["language"], text, match["comment"] or "", match["printed"] or ""))
    return [block for block in blocks if not languages or block.language in languages]

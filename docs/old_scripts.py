"""Writes the tables of how-to/old-scripts.md from the package's data. Run it as `python docs/old_scripts.py`."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from rmsprop_graves._chainer7.advice import ADVICE
from rmsprop_graves._chainer7.repairs import REPAIRS

PAGE = Path(__file__).parent / "how-to" / "old-scripts.md"


def repairs():
    """Returns the table of repairs: feature, version and symptom. Features with the same symptom share a row."""
    whats = {}
    for repair in REPAIRS:
        # Dotted names are code.
        what = re.sub(r"\b[A-Za-z]\w*(\.\w+)+", r"`\g<0>`", repair.what)
        whats.setdefault((repair.since, repair.seen), {})[what] = None
    rows = [["; ".join(what), since, seen] for (since, seen), what in whats.items()]
    return table(["in Chainer", "stopped working with", "what you saw"], rows)


def advice():
    """Returns the table of advice: old name, version and replacement. Names with the same replacement share a row."""
    rows = []
    for (since, instead), group in groupby(ADVICE, lambda entry: (entry.since, entry.instead)):
        rows.append(["; ".join(entry.old for entry in group), since or "any", instead])
    return table(["in your program", "stopped working with", "what to do"], rows)


def table(header, rows):
    """Returns a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def with_tables(page):
    """Returns the page with new tables between its markers."""
    for name, text in (("repairs", repairs()), ("advice", advice())):
        begin, end = f"<!-- begin: {name} -->\n\n", f"\n<!-- end: {name} -->\n"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"{PAGE} has no markers for {name}"
        page = before + begin + text + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

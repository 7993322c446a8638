"""Write the results: Markdown, JSON and, if matplotlib is installed, the pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import floor
from benchmarks.libraries import CHAINER, NUMBA, NUMPY, OPTAX, OURS, TORCH, TORCH_COMPILED

# Each processor has a folder in it.
FOLDER = Path(__file__).resolve().parent / "results"
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- the last runs begin -->", "<!-- the last runs end -->"


def folder_name(processor: str) -> str:
    """Return a processor's name as the name of a folder: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", processor.lower())).strip("-")


def write_all() -> list[Path]:
    """Write the documents and pictures of all committed runs again, and their summaries in the README."""
    written = []
    summaries = []
    for path in sorted(FOLDER.glob("*/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        written += write(results, path.parent)
        summaries.append(f"### {results['machine']['CPU']}\n\n{summary(results)}\n\n{_links(path.parent)}")
    insert("\n\n".join(summaries), README)
    return [*written, README]


def _links(folder: Path) -> str:
    pictures = (
        ("Nanoseconds per element and update by the number of elements in the model, a line for each library", "time"),
        ("Share of the floor's bandwidth that each library reaches on each model", "bandwidth"),
    )
    links = [f"![{text}](results/{folder.name}/{name}.png)" for text, name in pictures]
    return "\n\n".join([*links, f"[All tables of this run](results/{folder.name}/results.md)"])


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    written = save(results, _document(results), folder / "results", "python -m benchmarks")
    try:
        from benchmarks import pictures
    except ImportError as error:
        print(f"Left out: the pictures ({error})")
    else:
        written += pictures.draw(results, folder)
    return written


def save(results: dict[str, Any], document: str, stem: Path, command: str) -> list[Path]:
    """Write the results of a command as Markdown and as JSON; return the paths."""
    markdown, data = stem.with_suffix(".md"), stem.with_suffix(".json")
    markdown.write_text(f"# Results of a run of `{command}`\n\n{document}", encoding="utf-8")
    data.write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")
    return [markdown, data]


def insert(text: str, readme: Path) -> None:
    """Replace the text between the README's two marks."""
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def summary(results: dict[str, Any]) -> str:
    """Return the speed-ups in float32, with and without hooks."""
    about = results["machine"]
    lines = [
        f"rmsprop-graves {about['rmsprop-graves']} on {about['date']}, {about['cores usable']} usable cores, "
        f"{about['threads']} threads; "
        f"{_bandwidths(results)}.",
        "",
        "Speed-up in float32: median (lower to upper quartile) of the rounds",
        "",
        *_ratios(results, "float32"),
        "",
    ]
    if results["hooks"]:
        lines += ["Speed-up in float32 with hooks, and our time relative to no hooks", "", *_hook_ratios(results)]
    return "\n".join(lines).rstrip()


def hooks(results: dict[str, Any]) -> str:
    """Return the tables of the cases with hooks: speed-ups, and milliseconds."""
    lines = ["Speed-up, and our time relative to no hooks:", "", *_hook_ratios(results)]
    lines += ["", "Milliseconds per update:", "", *_hook_times(results)]
    return "\n".join(lines)


def host_costs(results: dict[str, Any]) -> str:
    """Return the rows of ``benchmarks.host.measure`` as a table."""
    lines = ["| | Chainer, µs | ours, µs | speed-up |", "|---|---:|---:|---:|"]
    for row in results["rows"]:
        chainers, ours = (row["microseconds"].get(name, []) for name in (CHAINER, OURS))
        speed_ups = [slow / fast for slow, fast in zip(chainers, ours)]
        lines += [f"| {row['what']} | {' | '.join(map(spread, (chainers, ours, speed_ups)))} |"]
    lines += ["", *(f"Left out: {line}." for line in results["left out"])]
    return "\n".join(lines)


def ratios(case: dict[str, Any], slow: str | None, fast: str | None) -> list[float]:
    """Return the speed-up in each round. A drift of the machine's speed affects both contenders of a round."""
    seconds = case["seconds"]
    if slow not in seconds or fast not in seconds:
        return []
    return [a / b for a, b in zip(seconds[slow], seconds[fast])]


def shares(results: dict[str, Any], case: dict[str, Any], name: str) -> list[float]:
    """Return the bandwidth in each round, relative to the floor with the same number of threads."""
    other = floor.name(results["threads"][name])
    return [case["bytes"] / results["floor"]["bytes"] * ratio for ratio in ratios(case, other, name)]


def best_of_ours(case: dict[str, Any]) -> str:
    return NUMBA if NUMBA in case["seconds"] else NUMPY


def better_torch(case: dict[str, Any]) -> str | None:
    return min((name for name in TORCH if name in case["seconds"]), key=lambda name: _median(case, name), default=None)


def contenders(results: dict[str, Any]) -> list[str]:
    return [name for name in results["threads"] if not name.startswith(floor.FLOOR)]


def dtypes(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(case["dtype"] for case in results["cases"]))


def _document(results: dict[str, Any]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in results["machine"].items())]
    lines += [f"| bandwidth | {_bandwidths(results)} |", f"| minutes | {results['minutes']:.1f} |", ""]
    lines += [f"Left out: {line}." for line in results["left out"]]
    lines += ["", "Every number is the median of the rounds, with the quartiles in parentheses.", ""]
    lines += ["## Speed-up", ""]
    for dtype in dtypes(results):
        lines += [f"{dtype}:", "", *_ratios(results, dtype), ""]
    for dtype in dtypes(results):
        lines += [f"## {dtype}: nanoseconds per element", ""]
        lines += _table(
            results, dtype, lambda case, name: spread([1e9 * s / case["elements"] for s in _of(case, name)])
        )
        lines += ["", f"## {dtype}: GB/s, and share of the floor with the same number of threads", ""]
        lines += _table(results, dtype, lambda case, name: _bandwidth(results, case, name))
        lines += [""]
    if results["hooks"]:
        lines += ["## float32 with hooks", "", hooks(results), ""]
    if results["host"]:
        lines += ["## Host cost per parameter", "", host_costs(results["host"]), ""]
    lines += ["## Training iterations, milliseconds", ""]
    lines += ["| network | optimizer | iteration | update | share of the update | speed-up of the iteration |"]
    lines += ["|---|---|---:|---:|---:|---:|", *(_training_row(results, row) for row in results["training"])]
    if results["floor"]["ways"]:
        lines += ["", "## The floor: the fastest round of each loop, placement, number of threads and span", ""]
        lines += ["| loop | shift, bytes | threads | span, bytes | GB/s |", "|---|---:|---:|---:|---:|"]
        for way in results["floor"]["ways"]:
            lines += [f"| {way['loop']} | {way['shift']:,} | {way['threads']} | {way['span']:,} | {way['GB/s']:.3g} |"]
    return "\n".join(lines) + "\n"


def _ratios(results: dict[str, Any], dtype: str) -> list[str]:
    lines = [
        "| model | rounds | over Chainer | over torch, better variant | over torch, compiled | over optax "
        "| NumPy kernel over Chainer | share of the floor |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
    for case in _cases(results, dtype):
        ours = best_of_ours(case)
        pairs = ((CHAINER, ours), (better_torch(case), ours), (TORCH_COMPILED, ours), (OPTAX, ours), (CHAINER, NUMPY))
        cells = [spread(ratios(case, slow, fast)) for slow, fast in pairs]
        cells += [percent(shares(results, case, ours))]
        lines += [f"| {case['model']} | {len(case['seconds'][ours])} | {' | '.join(cells)} |"]
    return lines


def _hook_ratios(results: dict[str, Any]) -> list[str]:
    lines = [
        "| model | hooks | over Chainer | over torch, better variant | over torch, compiled "
        "| NumPy kernel over Chainer | time relative to no hooks |"
    ]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    without = {}
    for case in results["hooks"]:
        ours = best_of_ours(case)
        # The first case of a model has no hooks.
        first = without.setdefault(case["model"], _of(case, ours))
        pairs = ((CHAINER, ours), (better_torch(case), ours), (TORCH_COMPILED, ours), (CHAINER, NUMPY))
        cells = [spread(ratios(case, slow, fast)) for slow, fast in pairs]
        cells += [spread([with_hooks / none for with_hooks, none in zip(_of(case, ours), first)])]
        lines += [f"| {case['model']} | {case['hooks']} | {' | '.join(cells)} |"]
    return lines


def _hook_times(results: dict[str, Any]) -> list[str]:
    by_model: dict[str, dict[str, dict[str, list[float]]]] = {}
    for case in results["hooks"]:
        by_model.setdefault(case["model"], {})[case["hooks"]] = case["seconds"]
    columns = list(next(iter(by_model.values())))
    lines = [f"| model | | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for model, seconds in by_model.items():
        for name in seconds[columns[0]]:
            cells = (spread([1e3 * one for one in seconds[column][name]]) for column in columns)
            lines += [f"| {model} | {name} | {' | '.join(cells)} |"]
    return lines


def _table(results: dict[str, Any], dtype: str, cell: Any) -> list[str]:
    cases = _cases(results, dtype)
    lines = [f"| | threads | {' | '.join(case['model'] for case in cases)} |", "|---|---:|" + "---:|" * len(cases)]
    for name in contenders(results):
        cells = (cell(case, name) for case in cases)
        lines += [f"| {name} | {results['threads'][name]} | {' | '.join(cells)} |"]
    return lines


def _training_row(results: dict[str, Any], row: dict[str, Any]) -> str:
    chainers = next(
        other for other in results["training"] if (other["network"], other["optimizer"]) == (row["network"], CHAINER)
    )
    cells = [
        spread([1e3 * seconds for seconds in row["iteration"]]),
        spread([1e3 * seconds for seconds in row["update"]]),
        percent([update / iteration for update, iteration in zip(row["update"], row["iteration"])]),
        spread([slow / fast for slow, fast in zip(chainers["iteration"], row["iteration"])]),
    ]
    return f"| {row['network']} | {row['optimizer']} | {' | '.join(cells)} |"


def _bandwidths(results: dict[str, Any]) -> str:
    names = [name for name in results["threads"] if name.startswith(floor.FLOOR)]
    return "; ".join(
        f"{name.replace('1 threads', '1 thread')}: {spread([rate / 1e9 for rate in floor_rates(results, name)])} GB/s"
        for name in names
    )


def floor_rates(results: dict[str, Any], name: str) -> list[float]:
    """Return the bytes per second of a contender of the floor, in every round of every case."""
    return [results["floor"]["bytes"] / seconds for case in results["cases"] for seconds in _of(case, name)]


def _cases(results: dict[str, Any], dtype: str) -> list[dict[str, Any]]:
    return [case for case in results["cases"] if case["dtype"] == dtype]


def _of(case: dict[str, Any], name: str) -> list[float]:
    return case["seconds"][name]


def _median(case: dict[str, Any], name: str) -> float:
    return median(_of(case, name))


def spread(values: list[float]) -> str:
    """Return the median, with the quartiles in parentheses."""
    if not values:
        return "-"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _bandwidth(results: dict[str, Any], case: dict[str, Any], name: str) -> str:
    return f"{case['bytes'] / _median(case, name) / 1e9:.3g}, {percent(shares(results, case, name))}"


def percent(values: list[float]) -> str:
    """Return the median and the quartiles of shares, in percent."""
    if not values:
        return "-"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{_two_digits(100 * middle)} % ({_two_digits(100 * low)} to {_two_digits(100 * high)})"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _rounded(value: Any) -> Any:
    """Round numbers to four digits, which is more than are significant."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value

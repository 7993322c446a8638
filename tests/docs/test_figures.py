"""The scripts that draw the documentation's pictures: their numbers and, on a small scale, their drawings."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy
import pytest
from skips import not_installed

from rmsprop_graves import kernels

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"

pytest.importorskip("matplotlib", minversion="3.7", reason="legends outside of the axes need matplotlib 3.7")
pytest.importorskip("sklearn", minversion="1.1", reason="two scripts train on scikit-learn's data, one unscaled")


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script by name, as if it ran in its folder. Its settings are undone afterwards."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(FIGURES), str(FIGURES.parent / "examples")])
    modules = set(sys.modules)
    import matplotlib

    with matplotlib.rc_context():
        yield importlib.import_module
    for name in set(sys.modules) - modules:
        if str(FIGURES.parent) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def save(script, tmp_path, monkeypatch):
    """A function that saves a figure, and asserts that the edges of the picture are white: nothing is cut off."""
    style = script("style")
    monkeypatch.setattr(style, "IMAGES", tmp_path)

    def save(figure):
        style.save(figure, "picture.png")
        with style.Image.open(tmp_path / "picture.png") as picture:
            pixels = numpy.array(picture.convert("L"))
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert edge.min() == 255

    return save


def test_a_picture_has_its_size_and_is_the_same_file_each_time(script, save, tmp_path, capsys):
    """The width of 900 pixels is 450 points on a screen with two pixels per point."""
    style = script("style")
    files = []
    for _ in range(2):
        figure, (panel,) = style.panels(1, 2)
        panel.plot([0, 1], [1, 0])
        save(figure)
        files.append((tmp_path / "picture.png").read_bytes())
    assert files[0] == files[1]
    assert files[0][16:24] == (900).to_bytes(4, "big") + (400).to_bytes(4, "big")  # where PNG has width and height
    assert capsys.readouterr().out.splitlines()[0] == f"docs/images/picture.png: {len(files[0]):,} bytes"


def test_a_steady_gradient_gives_nan_with_chainers_class(script, save):
    """The NaN comes at the step that the page names; this package's class stays finite."""
    below_zero = script("below_zero")
    classes = below_zero.CLASSES
    gradient = numpy.array([8.540375], "f")
    ours, chainers = (below_zero.steady(classes[name], gradient, 266) for name in classes)
    assert below_zero.first_nan(chainers[1]) == (264, 1.0)
    assert below_zero.first_nan(ours[1]) == (None, 0.0)
    numpy.testing.assert_array_equal(ours[0], chainers[0])
    assert numpy.flatnonzero(chainers[0] < 0)[0] + 1 == 253
    exact, _ = below_zero.steady(classes["RMSpropGraves"], gradient.astype("d"), 266)
    numpy.testing.assert_allclose(exact, below_zero.exact_variance(gradient, 266).astype("d"), rtol=1e-8)


def test_a_training_becomes_nan_only_with_chainers_class(script, save):
    """Both classes have the same errors up to step 265."""
    below_zero = script("below_zero")
    ours, chainers = (below_zero.train(make, 270) for make in below_zero.CLASSES.values())
    assert len(ours) == 270
    assert chainers == ours[:265]
    save(below_zero.draw_training(600))


def test_the_path_of_each_optimizer_ends_lower_than_it_begins(script, save, monkeypatch):
    """Every path begins at the start of its surface."""
    surfaces = script("surfaces")
    monkeypatch.setattr(surfaces, "RATES", [1e-3, 1e-2])
    for surface in surfaces.SURFACES.values():
        monkeypatch.setattr(surface, "steps", 30)
        assert surface.value(*surface.end) == 0
        for make in surfaces.CLASSES.values():
            rate, points, values = surfaces.best_path(make, surface)
            assert rate in surfaces.RATES
            assert points.shape == (surface.steps + 1, 2)
            assert tuple(points[0]) == surface.start
            assert values[-1] < values[0]
    save(surfaces.draw(surfaces.SURFACES["quadratic"]))


@pytest.mark.parametrize(
    ("train", "options"), [("train_on_digits", {}), ("train_on_text", {"text": "To be or not. " * 30})]
)
def test_curves_of_chainers_class_and_of_ours_are_the_same(script, save, monkeypatch, train, options):
    """Each example trains for one epoch and is drawn."""
    training = script("training")
    if train == "train_on_digits":
        load = training.train_digits.load_images
        monkeypatch.setattr(training.train_digits, "load_images", lambda seed: [part[:64] for part in load(seed)])
    monkeypatch.setattr(training.train_text, "STREAMS", 4)
    monkeypatch.setattr(training.train_text, "STEPS", 8)
    run = {name: getattr(training, train)(name, 1e-2, epochs=1, **options) for name in training.CLASSES}
    ours, chainers = run["RMSpropGraves"], run["Chainer's RMSpropGraves"]
    assert ours[1] == chainers[1] != run["Adam"][1]
    entries = [{**entry, "elapsed_time": 0} for entry in ours[0]]
    assert entries == [{**entry, "elapsed_time": 0} for entry in chainers[0]]
    quantities = training.DIGITS if train == "train_on_digits" else training.TEXT
    save(training.draw({(name, 1e-2): log for name, log in run.items()}, dict.fromkeys(run, 1e-2), quantities))


def test_dqn_curves_of_chainers_class_and_of_ours_are_the_same(script, save, monkeypatch, tmp_path, capsys):
    """Both train for 200 frames. The pictures are drawn as if all optimizers had the same curve."""
    dqn = script("dqn")
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).with_name("corridor.py"), tmp_path)
    small = ["--frames", "200", "--interval", "100", "--start", "50"]
    ours, chainers = (dqn.train("corridor:Corridor", name, 0, "runs", small) for name in list(dqn.OPTIONS)[:2])
    assert ours["optimizer"] != chainers.pop("optimizer")
    for run in (ours, chainers):
        run.pop("seconds")
    assert chainers == {name: value for name, value in ours.items() if name != "optimizer"}
    assert [frame for frame, _ in ours["returns"]] == [100, 200]
    assert dqn.train("corridor:Corridor", ours["optimizer"], 0, "runs", small)["hash"] == ours["hash"]
    runs = [{**ours, "game": game, "optimizer": name} for name in dqn.OPTIONS for game in dqn.GAMES]
    monkeypatch.setattr(dqn, "RUNS", tmp_path / "dqn.json")
    dqn.write(runs)
    assert json.loads(dqn.RUNS.read_text()) == runs
    dqn.describe(runs)
    output = capsys.readouterr().out
    assert f"breakout, Adam: {ours['returns'][-1][1]:.2f}; at random {ours['random']:.2f}\n" in output
    assert "Chainer's class in breakout, seed 0: the same bits\n" in output
    dqn.describe([{**run, "hash": run["optimizer"]} for run in runs])
    assert "Chainer's class in breakout, seed 0: OTHER BITS\n" in capsys.readouterr().out
    save(dqn.draw_optimizers(runs))
    save(dqn.draw_games(runs))


def test_the_profile_of_dqn_has_the_share_of_each_part(script, monkeypatch, tmp_path):
    """The parts do not overlap. The rest of the time goes to Chainer's and the example's own code."""
    dqn = script("dqn")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    speed, shares = dqn.profile("corridor:Corridor", "adam", 100)
    assert speed > 0
    assert set(shares) == {"replay", "game", "action", "forward", "backward", "step"}
    assert all(share > 0 for share in shares.values())
    assert 0.5 < sum(shares.values()) < 1


def test_the_diagram_shows_the_parameters_that_are_stepped_together(script, save):
    """All parameters except the one with a hook lie end to end in memory, and the spans cover them."""
    pytest.importorskip("numba", reason=not_installed("numba"))
    whole_model = script("whole_model")
    before = kernels.on_cpu()
    try:
        rows, spans = whole_model.observe()
    finally:
        kernels.use_on_cpu(before.__name__.rpartition(".")[2])
    hooked, *others = rows
    assert hooked == ("/embed/W", (96, 32), None)
    assert [end - begin for _, _, (begin, end) in others] == [numpy.prod(shape) for _, shape, _ in others]
    for ranges in ([bounds for *_, bounds in others], spans):
        assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert spans[-1][1] == others[-1][2][1]
    save(whole_model.draw(rows, spans))


def test_the_share_of_the_floor_agrees_with_the_benchmarks_readme(script, save):
    """The README has the share in the last column of the processor's first table.

    The picture cuts no mark off, and no mark of a row is at the height of another.
    """
    benchmark = script("benchmark")
    readme = (FIGURES.parents[1] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    results = benchmark.read()
    section = readme.partition(f"### {results['machine']['CPU']}\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (.+?) \| \d.*\| (\S+) % \([^|]*\) \|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == [case["model"] for case in results["cases"]]
    shares = benchmark.shares_of_the_floor(results, "ours, Numba")
    numpy.testing.assert_allclose(shares, [float(share) for _, share in rows], rtol=0.02)
    save(benchmark.draw_time(results))
    floor = benchmark.draw_floor(results)
    (panel,) = floor.axes
    left, right = panel.get_xlim()
    marks = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == len(rows)]
    assert len(marks) == len(benchmark.pictures.STYLES)
    heights = [line.get_ydata() for line in panel.lines if len(line.get_xdata()) == len(rows)]
    assert numpy.diff(numpy.sort(numpy.ravel(heights))).min() > 0.1
    _, labels = panel.get_legend_handles_labels()
    assert labels[:2] == ["this package, Numba", "this package, NumPy"]
    assert left <= numpy.min(marks)
    assert numpy.max(marks) < right
    save(floor)

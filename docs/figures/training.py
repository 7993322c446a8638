"""Training curves of both examples: this package's class, Chainer's, Adam and SGD, each at the best of several rates.

Every run uses the example's model, data and schedule, and the same initial weights. The runs of one example run in
parallel, one per core.
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# With one thread the bits do not depend on the number of cores.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer
import numpy
import style
import train_digits
import train_text
from chainer.training import extensions, updaters

CLASSES = {
    style.OURS: RMSpropGraves,
    style.CHAINER: chainer.optimizers.rmsprop_graves.RMSpropGraves,
    "Adam": chainer.optimizers.Adam,
    "SGD": chainer.optimizers.SGD,
}
# Chainer's class uses the best rate of this package's class.
DIGITS_RATES = {style.OURS: [1e-4, 3e-4, 1e-3], "Adam": [3e-3, 1e-2, 3e-2], "SGD": [0.1, 0.3, 1]}
TEXT_RATES = {style.OURS: [1e-2, 3e-2, 1e-1], "Adam": [1e-2, 3e-2, 1e-1], "SGD": [3, 10, 30]}


def train_on_digits(optimizer, rate, epochs=15):
    """Trains the network for digits; returns the log's entry for each epoch, and a hash of the final weights."""
    numpy.random.seed(0)
    train, test = train_digits.load_images(0)
    model = train_digits.build_model()
    iterator = chainer.iterators.SerialIterator(train, 16, shuffle=None, order_sampler=train_digits.shuffle)
    updater = updaters.StandardUpdater(iterator, CLASSES[optimizer](rate).setup(model))
    test_iterator = chainer.iterators.SerialIterator(test, len(test), repeat=False, shuffle=False)
    return _run(updater, extensions.Evaluator(test_iterator, model), 0.8, epochs, 1)


def train_on_text(optimizer, rate, epochs=6, text=None):
    """Trains the character model; returns the log with four entries per epoch, and a hash of the final weights."""
    numpy.random.seed(0)
    alphabet, ids = numpy.unique(list(text or train_text.read_text(None)), return_inverse=True)
    ids = ids.astype("i")
    training, held_out = (
        chainer.iterators.SerialIterator(train_text.cut_windows(part), 1, repeat=repeat, shuffle=False)
        for part, repeat in ((ids[: len(ids) * 9 // 10], True), (ids[len(ids) * 9 // 10 :], False))
    )
    model = train_text.CharacterModel(len(alphabet), 128)
    optimizer = CLASSES[optimizer](rate).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(5))
    sent = {"converter": train_text.send_window, "device": model.device}
    updater = train_text.TruncatedUpdater(training, optimizer, **sent)
    reader = model.copy()
    evaluator = extensions.Evaluator(held_out, reader, **sent)
    evaluator.eval_hook = lambda _: reader.lstm.reset_state()
    return _run(updater, evaluator, 0.6, epochs, 0.25)


def _run(updater, evaluator, factor, epochs, every):
    optimizer = updater.get_optimizer("main")
    trainer = chainer.training.Trainer(updater, (epochs, "epoch"))
    trainer.extend(evaluator, name="held-out", trigger=(every, "epoch"))
    # Chainer's name for the learning rate of Adam.
    rate = "alpha" if isinstance(optimizer, chainer.optimizers.Adam) else "lr"
    trainer.extend(extensions.ExponentialShift(rate, factor), trigger=(1, "epoch"))
    log = extensions.LogReport(trigger=(every, "epoch"), filename=None)
    trainer.extend(log)
    trainer.run()
    weights = hashlib.sha256(b"".join(param.array.tobytes() for _, param in sorted(optimizer.target.namedparams())))
    return log.log, weights.hexdigest()


def race(train, rates, loss):
    """Trains with every optimizer at every rate.

    Args:
        train: A function that takes an optimizer's name and a rate, and returns a log and a hash.
        rates: The rates of each optimizer. Chainer's class uses the best rate of this package's class.
        loss: The name of a loss in the log. The best rate has the lowest final value.

    Returns:
        The results of `train` by optimizer and rate, and the best rate of each optimizer.
    """
    cases = [(name, rate) for name in rates for rate in rates[name]]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        runs = dict(zip(cases, pool.map(train, *zip(*cases))))
        best = {name: min(rates[name], key=lambda rate: _last(runs[name, rate], loss)) for name in rates}
        best[style.CHAINER] = best[style.OURS]
        chainers = (style.CHAINER, best[style.CHAINER])
        runs[chainers] = pool.submit(train, *chainers).result()
    is_same = runs[chainers][1] == runs[style.OURS, best[style.OURS]][1]
    for name, rate in runs:
        print(f"{name} at {rate:g}: {loss} {_last(runs[name, rate], loss):.4g}{' (best)' * (rate == best[name])}")
    print(f"Chainer's class ends with {'the same weights' if is_same else 'DIFFERENT WEIGHTS'}")
    return runs, best


def _last(run, key):
    last = run[0][-1][key]
    return last if numpy.isfinite(last) else numpy.inf


def draw(runs, best, quantities):
    """Draws a panel for each quantity: `quantities` maps its label to a function of a log entry, and axis limits."""
    figure, panels = style.panels(len(quantities), 2.5 * len(quantities) + 1.5, sharex=True)
    for panel, (label, (compute, limits)) in zip(panels, quantities.items()):
        for (name, rate), (log, _) in sorted(runs.items(), key=lambda run: list(CLASSES).index(run[0][0])):
            is_chainers = name == style.CHAINER
            options = {"color": style.COLORS[name], "zorder": 3, "linewidth": 3 if name == style.OURS else 2}
            if rate != best[name]:
                options.update(alpha=0.4, zorder=2, linewidth=1)
            panel.plot(
                [entry["iteration"] * log[-1]["epoch"] / log[-1]["iteration"] for entry in log],
                [compute(entry) for entry in log],
                linestyle=(0, (2, 2)) if is_chainers else "-",
                label=f"{name}, {rate:g}" if rate == best[name] else None,
                **options,
            )
        panel.set(ylabel=label, **limits)
    panels[-1].set_xlabel("epoch")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", title="thick: each at its best learning rate")
    return figure


DIGITS = {
    "training loss": (lambda entry: entry["main/loss"], {"yscale": "log", "ylim": (1e-4, 3)}),
    "test images misread, %": (lambda entry: 100 * (1 - entry["held-out/main/accuracy"]), {"ylim": (0, 10)}),
}
# Above 3.3, SGD at its highest rate goes up and down.
TEXT = {
    "training,\nbits per character": (lambda entry: entry["main/bits"], {"ylim": (1.4, 3.3)}),
    "held-out text,\nbits per character": (lambda entry: entry["held-out/main/bits"], {"ylim": (1.4, 3.3)}),
}

if __name__ == "__main__":
    style.save(draw(*race(train_on_digits, DIGITS_RATES, "held-out/main/loss"), DIGITS), "training-digits.png")
    style.save(draw(*race(train_on_text, TEXT_RATES, "held-out/main/bits"), TEXT), "training-text.png")

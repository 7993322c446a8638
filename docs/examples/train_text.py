"""Learns to write English a character at a time: an LSTM, trained with Graves's RMSprop on truncated sequences.

    python train_text.py                        about 2 bits per character, in two to three minutes
    python train_text.py --resume               goes on after Ctrl-C, with bit-identical results
    python train_text.py --text novel.txt       reads a text of your own

This is a small version of the setting in Graves's paper (arXiv 1308.0850). The text is the Python reference, which
every Python includes as help on its topics; the last tenth is held out. The order-0 entropy, printed beside the
result, is the cost of a character for a model that knows only the frequency of each character.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import zlib
from pathlib import Path
from pydoc_data.topics import topics

# With one thread the results do not depend on the number of cores. More threads would not speed up such small arrays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer.training import extensions, updaters
from interruptible import InterruptibleTrainer, PrintReport

STREAMS = 64  # number of positions in the text that are read in parallel
STEPS = 32  # characters of each stream per update; the gradient flows back through all of them


class CharacterModel(chainer.Chain):
    """Predicts the next character of each stream from all earlier ones."""

    def __init__(self, n_characters, n_units):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(n_characters, 32)
            self.lstm = L.LSTM(32, n_units)
            self.output = L.Linear(n_units, n_characters)

    def read(self, x):
        """Takes one character per stream, returns the scores of the next."""
        return self.output(self.lstm(self.embed(x)))

    def forward(self, x, t):
        """Returns the mean cost of the characters t that follow x, both of shape (steps, streams)."""
        y = F.concat([self.read(step) for step in x], axis=0)
        loss = F.softmax_cross_entropy(y, t.ravel())
        chainer.report({"bits": loss.array / math.log(2)}, self)
        return loss


class TruncatedUpdater(updaters.StandardUpdater):
    """Updates window by window: the LSTM's state lasts for an epoch, but gradients stop at a window's start."""

    @property
    def lstm(self):
        """The link whose state lasts for an epoch."""
        return self.get_optimizer("main").target.lstm

    def update_core(self):
        """One step on the next window."""
        if self.is_new_epoch:
            self.lstm.reset_state()
        super().update_core()
        self.lstm.c.unchain()
        self.lstm.h.unchain()

    def serialize(self, serializer):
        """Also saves or loads the LSTM's state, which Chainer's snapshots leave out."""
        super().serialize(serializer)
        if isinstance(serializer, chainer.Deserializer):
            c, h = serializer("lstm/c", None), serializer("lstm/h", None)
            self.lstm.set_state(chainer.Variable(c), chainer.Variable(h))
        else:
            serializer("lstm/c", self.lstm.c.array)
            serializer("lstm/h", self.lstm.h.array)


@chainer.dataset.converter()
def send_window(batch, device):
    """Converts a batch, which is a single window of all streams."""
    return device.send(batch[0])


def read_text(path):
    """Returns the text of a file, or of Python's help on its topics if there is no path."""
    if path is not None:
        return Path(path).read_text(encoding="utf-8")
    # Keep each paragraph once: one under two topics could be in both the training and the held-out text.
    paragraphs = "\n\n".join(topics[name].strip("\n") for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def cut_windows(ids):
    """Cuts the text into pairs (x, t) of shape (steps, streams), where t is x shifted by one character."""
    n_windows = (len(ids) - 1) // (STREAMS * STEPS)
    x, t = (
        part[: n_windows * STREAMS * STEPS].reshape(STREAMS, n_windows, STEPS).transpose(1, 2, 0)
        for part in (ids[:-1], ids[1:])
    )
    return chainer.datasets.TupleDataset(x, t)


def order0_entropy(ids):
    """Returns the bits per character of a code that uses only the frequency of each character."""
    p = numpy.unique(ids, return_counts=True)[1] / len(ids)
    return -(p * numpy.log2(p)).sum()


def sample(model, alphabet, length, seed):
    """Samples text from the model, character by character."""
    random = numpy.random.RandomState(seed)
    model.lstm.reset_state()
    ids = [0]  # the first character of the alphabet, in most texts a newline
    with chainer.no_backprop_mode():
        while len(ids) <= length:
            x = model.device.send(numpy.array(ids[-1:], "i"))
            p = chainer.get_device("@numpy").send(F.softmax(model.read(x)).array[0]).astype("d")
            ids.append(random.choice(len(p), p=p / p.sum()))
    return "".join(alphabet[ids]).strip()


def main():
    """Trains with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="@numpy", help="Chainer device, such as @cupy:0 (default: %(default)s)")
    parser.add_argument("--epoch", type=int, default=6, help="total number of epochs (default: %(default)s)")
    parser.add_argument("--out", default="result/text", help="folder for the results (default: %(default)s)")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="SNAPSHOT", help="resume from SNAPSHOT, or the newest one in --out"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and sample (default: %(default)s)")
    parser.add_argument("--text", metavar="FILE", help="text in UTF-8 (default: the help on Python's topics)")
    parser.add_argument("--unit", type=int, default=128, help="LSTM units (default: %(default)s)")
    args = parser.parse_args()
    for name in ("epoch", "unit"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be in 0 ... 2**32 - 1, got {args.seed}")
    try:
        device = chainer.get_device(args.device)
        device.use()
    except Exception as error:
        parser.error(f"--device {args.device} is not available: {' '.join(str(error).split())}")
    try:
        text = read_text(args.text)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"--text {args.text} cannot be read: {error}")

    alphabet, ids = numpy.unique(list(text), return_inverse=True)
    ids = ids.astype("i")
    training, held_out = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]
    if len(held_out) <= STREAMS * STEPS:
        parser.error(
            f"--text {args.text} is too short: {len(text):,} characters, needs at least {10 * STREAMS * STEPS + 10:,}"
        )

    numpy.random.seed(args.seed)
    model = CharacterModel(len(alphabet), args.unit)
    model.to_device(device)
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(5))

    iterator = chainer.iterators.SerialIterator(cut_windows(training), 1, shuffle=False)
    updater = TruncatedUpdater(iterator, optimizer, converter=send_window, device=device)
    settings = {"seed": args.seed, "text": zlib.crc32(text.encode()), "unit": args.unit}
    trainer = InterruptibleTrainer(updater, args.epoch, args.out, settings)

    reader = model.copy()  # the same parameters, but a separate LSTM state
    held_out_iterator = chainer.iterators.SerialIterator(cut_windows(held_out), 1, repeat=False, shuffle=False)
    evaluator = extensions.Evaluator(held_out_iterator, reader, converter=send_window, device=device)
    evaluator.eval_hook = lambda _: reader.lstm.reset_state()
    trainer.extend(evaluator, name="held-out")
    trainer.extend(extensions.observe_lr())
    trainer.extend(extensions.ExponentialShift("lr", 0.6), trigger=(1, "epoch"))
    trainer.extend(extensions.LogReport(filename="log.json"))
    has_bar = sys.stdout.isatty()
    trainer.extend(PrintReport(["epoch", "lr", "main/bits", "held-out/main/bits", "elapsed_time"], has_bar))
    if has_bar:  # a function as its trigger keeps the bar out of snapshots
        trainer.extend(extensions.ProgressBar(update_interval=5), trigger=lambda _: True)

    if args.resume is not None:
        try:
            trainer.resume(args.resume)
        except ValueError as error:
            parser.error(f"--resume: {error}")
    try:
        os.makedirs(args.out, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        parser.error(f"--out {args.out} cannot be written to: {error.strerror}")
    trainer.run()

    bits = trainer.get_extension("LogReport").log[-1]["held-out/main/bits"]
    print(f"Held-out text: {bits:.2f} bits per character; order-0 entropy: {order0_entropy(held_out):.2f}")
    print(f"Log:      {args.out}/log.json")
    print(f"Snapshot: {trainer.newest_snapshot()}")
    print(f"A sample:\n\n{sample(reader, alphabet, 600, args.seed)}")


if __name__ == "__main__":
    main()

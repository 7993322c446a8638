"""The common style of the figures: colours for colour-blind readers, and text that is legible on a phone.

Every figure is 4.5 inches wide. A phone with 390 pixels shows it 358 pixels wide, with text of 9 points.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

IMAGES = Path(__file__).resolve().parents[1] / "images"
WIDTH = 4.5

# The palette of Okabe and Ito.
BLUE, ORANGE, GREEN, RED, PINK, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000"
OURS, CHAINER = "RMSpropGraves", "Chainer's RMSpropGraves"
COLORS = {OURS: BLUE, CHAINER: ORANGE, "Adam": GREEN, "SGD": RED, "MomentumSGD": RED, "RMSprop": PINK}

plt.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        # A margin, because the page may not be white.
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.w_pad": 0.06,
        "figure.facecolor": "white",
        "font.size": 11,
        "grid.color": "0.9",
        # A legend covers the lines behind it.
        "legend.edgecolor": "none",
        "legend.fontsize": 11,
        "legend.framealpha": 1,
        "savefig.dpi": 200,
    }
)


def panels(rows, height, **options):
    """Returns a figure with a column of panels, and the panels. The heights are in inches."""
    figure, axes = plt.subplots(rows, 1, figsize=(WIDTH, height), squeeze=False, layout="constrained", **options)
    return figure, list(axes[:, 0])


def save(figure, name):
    """Writes a figure to docs/images in 256 colours, and prints its path."""
    drawn = io.BytesIO()
    figure.savefig(drawn)
    plt.close(figure)
    IMAGES.mkdir(exist_ok=True)
    Image.open(drawn).convert("RGB").quantize(dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)
    print(f"docs/images/{name}: {(IMAGES / name).stat().st_size:,} bytes")

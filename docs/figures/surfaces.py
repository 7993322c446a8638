"""Paths of this package's class and Chainer's RMSprop, MomentumSGD and Adam on two surfaces, each at its best rate.

The best rate has the lowest maximum in the last tenth of the steps. If a path oscillates around the minimum, its last
value alone depends on chance.
"""

from __future__ import annotations

import math

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer
import numpy
import style
from matplotlib.ticker import LogLocator

CLASSES = {
    style.OURS: RMSpropGraves,
    "RMSprop": chainer.optimizers.RMSprop,
    "MomentumSGD": chainer.optimizers.MomentumSGD,
    "Adam": chainer.optimizers.Adam,
}
RATES = [digit * 10.0**exponent for exponent in range(-5, 1) for digit in (1, 2, 5)]


class Surface:
    """A function of two numbers that Chainer differentiates.

    Args:
        name: The title.
        value: A function of two variables or arrays.
        start: The first point of every path.
        end: The minimum, where the value is 0.
        steps: The number of steps of a path.
        window: Left, right, bottom and top of the picture.
    """

    def __init__(self, name, value, start, end, steps, window):
        """Keeps the arguments."""
        self.name, self.value, self.start, self.end = name, value, start, end
        self.steps, self.window = steps, window


def quadratic(x, y):
    """A quadratic function of condition number 100, with axes turned by 30 degrees."""
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    return ((cos * x + sin * y) ** 2 + 100 * (cos * y - sin * x) ** 2) / 2


def rosenbrock(x, y):
    """Rosenbrock's function, a banana-shaped valley."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


SURFACES = {
    "quadratic": Surface("Quadratic", quadratic, (-2.0, 0.5), (0, 0), 100, (-2.6, 1.4, -1.8, 1.4)),
    "rosenbrock": Surface("Rosenbrock", rosenbrock, (-1.2, 1.0), (1, 1), 300, (-1.9, 1.9, -0.9, 2.9)),
}


def path(make, rate, surface):
    """Returns an optimizer's points in float64 and their values, which are not finite if the path diverges."""
    point = chainer.Link()
    with point.init_scope():
        point.x, point.y = (chainer.Parameter(numpy.array(at)) for at in surface.start)
    optimizer = make(rate).setup(point)
    points = [surface.start]
    with numpy.errstate(all="ignore"):
        for _ in range(surface.steps):
            optimizer.update(surface.value, point.x, point.y)
            points.append((float(point.x.array), float(point.y.array)))
        points = numpy.array(points)
        return points, surface.value(*points.T)


def best_path(make, surface):
    """Returns the best rate with its points and values."""
    paths = {rate: path(make, rate, surface) for rate in RATES}
    rate = min(RATES, key=lambda rate: last_of(paths[rate][1]))
    return rate, *paths[rate]


def last_of(values):
    """Returns the highest of the last tenth of the values, or infinity if one of them is not finite."""
    highest = values[-(len(values) // 10) :].max()
    return highest if numpy.isfinite(highest) else math.inf


def draw(surface):
    """Draws a panel for each optimizer's path, and one panel for all values."""
    figure = style.plt.figure(figsize=(style.WIDTH, 7.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [list(CLASSES)[:2], list(CLASSES)[2:], ["value", "value"]], height_ratios=[1, 1, 1.15]
    )
    left, right, bottom, top = surface.window
    grid = numpy.meshgrid(numpy.linspace(left, right, 200), numpy.linspace(bottom, top, 200))
    for name, make in CLASSES.items():
        rate, points, values = best_path(make, surface)
        print(f"{surface.name}, {name} at {rate:g}: at most {last_of(values):.2g} at the end")
        panel, color = axes[name], style.COLORS[name]
        panel.contour(*grid, surface.value(*grid), levels=10 ** numpy.arange(-2, 4, 0.5), colors="0.8", linewidths=0.8)
        panel.plot(*points.T, color=color, linewidth=1.2, marker=".", markersize=3)
        panel.plot(*surface.end, color="black", marker="*", markersize=9, linestyle="none", zorder=3)
        panel.set(title=f"{name}, {rate:g}", xlim=(left, right), ylim=(bottom, top))
        panel.set(xticks=range(math.ceil(left), int(right) + 1), yticks=range(math.ceil(bottom), int(top) + 1))
        panel.grid(False)
        axes["value"].plot(values, color=color, label=name)
    axes["value"].set(xlabel="step", ylabel="value", yscale="log")
    axes["value"].yaxis.set_major_locator(LogLocator(numticks=6))
    figure.legend(*axes["value"].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    for name, surface in SURFACES.items():
        style.save(draw(surface), f"surface-{name}.png")

"""Pictures of a negative n - g^2 in Chainer's class and in this package's: one parameter, and the training of a model.

The script also prints when Chainer's class first gives a NaN, for gradients of many sizes.
"""

from __future__ import annotations

import warnings

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import style
from sklearn.datasets import load_diabetes

CLASSES = {
    style.OURS: RMSpropGraves,
    style.CHAINER: chainer.optimizers.rmsprop_graves.RMSpropGraves,
}


def steady(make, gradient, steps):
    """Updates parameters, initially 0, with a constant gradient.

    Returns:
        The computed n - g^2 and the parameters, each as an array with a row for each step.
    """
    link = chainer.Link()
    with link.init_scope():
        link.w = chainer.Parameter(numpy.zeros_like(gradient))
    optimizer = make().setup(link)
    variances, params = [], []
    with warnings.catch_warnings(), numpy.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(steps):
            link.w.grad = gradient.copy()
            optimizer.update()
            state = link.w.update_rule.state
            variances.append(state["n"] - state["g"] * state["g"])
            params.append(link.w.array.copy())
    return numpy.array(variances), numpy.array(params)


def draw_gradients(dtype, size, count=4096):
    """Returns random gradients between `size / 2` and `size`."""
    return numpy.random.RandomState(0).uniform(size / 2, size, count).astype(dtype)


def first_nan(params):
    """Returns the first step after which a parameter is NaN, or None, and the share of NaN parameters at the end."""
    is_nan = numpy.isnan(params)
    steps = numpy.flatnonzero(is_nan.any(axis=1))
    return (int(steps[0]) + 1 if len(steps) else None), float(is_nan[-1].mean())


SURVEY = {"float16": [0.01, 0.1, 1, 10], "float32": [8, 10, 100, 1000], "float64": [1e4, 1e6]}


def survey(dtype, size, steps=1000):
    """Measures the effects of 4096 constant gradients at default settings.

    Returns:
        For Chainer's class, the first step after which there is a NaN, the share of NaN at the end, and the lowest
        n - g^2 relative to the squared gradient. Then the largest factor by which a negative n - g^2 makes its step
        larger than a variance of zero would. Whether all results of this package's class are finite. And the largest
        error of n - g^2, in units of the roundoff times n / (1 - alpha).
    """
    gradients = draw_gradients(dtype, size)
    variances, params = steady(CLASSES[style.CHAINER], gradients, steps)
    _, ours = steady(RMSpropGraves, gradients, steps)
    eps = numpy.dtype(dtype).type(RMSpropGraves().eps)
    rooted = (variances + eps)[(variances < 0) & (variances + eps > 0)].astype("f8")
    lowest = (variances.astype("f8") / gradients.astype("f8") ** 2).min()
    too_large = numpy.sqrt(float(eps) / rooted.min(initial=float(eps)))
    error = numpy.abs(variances - exact_variance(gradients, steps)) / gradients.astype("g") ** 2
    error *= (1 - RMSpropGraves().alpha) / (numpy.finfo(dtype).eps / 2)
    return *first_nan(params), lowest, too_large, bool(numpy.isfinite(ours).all()), float(error.max())


def exact_variance(gradients, steps):
    """Returns the exact n - g^2 of constant gradients after each step, in extended precision if available."""
    kept = numpy.longdouble(RMSpropGraves().alpha) ** numpy.arange(1, steps + 1)[:, None]
    return gradients.astype("g") ** 2 * kept * (1 - kept)


def draw_steady(first=180, last=330):
    """Draws the parameter that is the first of 4096 to become NaN in Chainer's class."""
    gradients = draw_gradients("float32", 10)
    _, params = steady(CLASSES[style.CHAINER], gradients, last)
    when = numpy.isnan(params).argmax(axis=0)
    chosen = int(numpy.where(when > 0, when, last).argmin())
    gradient = gradients[chosen : chosen + 1]
    eps, lr = RMSpropGraves().eps, RMSpropGraves().lr
    runs = {name: steady(make, gradient, last) for name, make in CLASSES.items()}
    exact, exact_param = steady(RMSpropGraves, gradient.astype("f8"), last)
    step = numpy.arange(1, last + 1)
    nan = int(numpy.isnan(runs[style.CHAINER][1][:, 0]).argmax()) + 1
    print(f"A float32 gradient of {gradient[0]} at each step: Chainer's class is NaN from step {nan} on")

    figure, (variance, size, param) = style.panels(3, 7.2, sharex=True)
    variance.plot(step, 1e4 * exact, color="0.6", linewidth=2, label="in float64")
    variance.plot(step, 1e4 * runs[style.OURS][0], color=style.BLACK, linewidth=1.2, label="in float32, both classes")
    variance.axhline(-1e4 * eps, color=style.RED, linewidth=1.2, linestyle="--", label="$-\\epsilon$")
    variance.set(ylabel="$n - g^2$, in $10^{-4}$", ylim=(-2, 8))
    variance.legend(loc="upper right", handlelength=1)
    for name, (computed, params) in runs.items():
        used = numpy.maximum(computed[:, 0], 0) if name == style.OURS else computed[:, 0]
        with numpy.errstate(invalid="ignore"):
            sizes = lr * gradient[0] / numpy.sqrt(used + numpy.float32(eps))
        chainers = name == style.CHAINER
        options = {"color": style.COLORS[name], "label": name, "zorder": 2 if chainers else 3}
        until = slice(0, nan - 1) if chainers else slice(None)
        size.plot(step[until], sizes[until], linewidth=3 if chainers else 1.5, **options)
        param.plot(step[until], -params[until, 0], linewidth=3 if chainers else 1.5, **options)
        if chainers:
            for panel, values in ((size, sizes), (param, -params[:, 0])):
                mark_nan(panel, nan - 1, values[nan - 2])
                panel.axvline(nan, color="0.5", linewidth=1, linestyle=":")
                panel.annotate("NaN", (nan - 1, values[nan - 2]), (-10, 0), textcoords="offset points", ha="right")
    variance.axvline(nan, color="0.5", linewidth=1, linestyle=":")
    param.plot(step, -exact_param, color="0.6", linewidth=2, zorder=1, label="in float64")
    size.set(ylabel="lr $x$ / root", yscale="log", ylim=(5e-3, 3))
    param.set(ylabel="distance moved", xlabel="step", xlim=(first, last), ylim=(0, None))
    size.legend(loc="lower right")
    param.legend(loc="upper left")
    return figure


def mark_nan(panel, step, value):
    """Marks the last finite value of Chainer's class."""
    panel.plot(step, value, "x", color=style.COLORS[style.CHAINER], markersize=9, markeredgewidth=2.5, zorder=4)


def train(make, steps):
    """Fits a linear model to the diabetes data with the sum of absolute errors.

    Returns:
        The mean absolute error after each step, up to the first that is not finite.
    """
    x, t = load_diabetes(return_X_y=True, scaled=False)
    x = ((x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))).astype("f")
    t = t.astype("f")[:, None]
    numpy.random.seed(0)
    model = L.Linear(x.shape[1], 1)
    optimizer = make(lr=1e-5).setup(model)
    errors = []
    with numpy.errstate(invalid="ignore"):
        for _ in range(steps):
            optimizer.update(lambda: F.sum(F.absolute(model(x) - t)))
            errors.append(float(F.mean_absolute_error(model(x), t).array))
            if not numpy.isfinite(errors[-1]):
                return errors[:-1]
    return errors


def draw_training(steps=1000):
    """Draws the mean error over the steps for both classes."""
    figure, (panel,) = style.panels(1, 3.4)
    for name, make in CLASSES.items():
        errors = train(make, steps)
        last = len(errors)
        print(f"Least absolute deviations, {name}: {errors[-1]:.1f} after {last} of {steps} steps")
        chainers = name == style.CHAINER
        options = {"color": style.COLORS[name], "linewidth": 4 if chainers else 2, "zorder": 2 if chainers else 3}
        panel.plot(range(1, last + 1), errors, label=name, **options)
        if last < steps:
            mark_nan(panel, last, errors[-1])
            panel.axvspan(last, steps, color=style.COLORS[name], alpha=0.15, linewidth=0)
            note = f"Chainer's class: NaN\nfrom step {last + 1} on"
            panel.annotate(note, (last, errors[-1]), (12, -2), textcoords="offset points", va="top")
    panel.set(xlabel="step", ylabel="mean absolute error", xlim=(0, steps), ylim=(0, None))
    figure.legend(loc="outside lower center")
    return figure


if __name__ == "__main__":
    for dtype, sizes in SURVEY.items():
        for size in sizes:
            first, share, lowest, too_large, is_finite, error = survey(dtype, size)
            print(
                f"{dtype}, gradients of {size / 2:g} to {size:g}: first NaN {first}, {share:.1%} NaN at the end; "
                f"n - g^2 down to {lowest:.1e} grad^2; steps {too_large:.1f} times too large; "
                f"ours finite: {is_finite}; error {error:.1f} u n / (1 - alpha)"
            )
    style.save(draw_steady(), "below-zero.png")
    style.save(draw_training(), "below-zero-training.png")

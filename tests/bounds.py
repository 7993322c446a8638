"""How far an implementation of the step may be from the exact rule, and so two of them from each other.

Implementations round at different places: NumPy rounds every product and sum, a fused multiply-add both at once.
What that costs depends on the data. An error in n or g stays for 1 / (1 - alpha) steps and one in delta for
1 / (1 - momentum), and n - g^2 cancels, so that delta is as uncertain as that difference plus eps is small beside n.
So the bound is no table of measured tolerances: it is carried through the run beside each element.
"""

from __future__ import annotations

import numpy

ENTRIES = ("param", "n", "g", "delta")

DEFAULTS = {"lr": 1e-4, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
SETTINGS = {
    "defaults": DEFAULTS,
    "dqn": {"lr": 2.5e-4, "alpha": 0.95, "momentum": 0.0, "eps": 1e-2},
    "short memory": {"lr": 1e-3, "alpha": 0.8, "momentum": 0.8, "eps": 1e-8},
    "long memory": {"lr": 0.1, "alpha": 0.99, "momentum": 0.9, "eps": 1e-6},
    "ascent without memory": {"lr": -1e-2, "alpha": 0.0, "momentum": 0.0, "eps": 1.0},
}

# Of each dtype: half an ulp of 1 in what it is computed in and, where that is another, in what it is stored in; and
# the largest number that underflow may take to zero. CuPy compiles with -ftz=true, for which float32 has no
# subnormal numbers.
ROUNDOFF = {
    "float16": (2.0**-24, 2.0**-11, 2.0**-25),
    "float32": (2.0**-24, 0.0, 2.0**-126),
    "float64": (2.0**-53, 0.0, 2.0**-1074),
}

# What the bound amounts to after 100 steps at the default settings with gradients that vary about zero: the largest
# distance allowed between two implementations, over the largest magnitude of the entry.
TYPICAL = {
    "float16": {"param": 0.15, "n": 0.02, "g": 0.02, "delta": 0.05},
    "float32": {"param": 3e-5, "n": 1e-5, "g": 1e-5, "delta": 2e-5},
    "float64": {"param": 5e-14, "n": 2e-14, "g": 2e-14, "delta": 3e-14},
}


class Run:
    """The rule in float64, and beside each value how far from it rounding to a dtype can lead.

    Args:
        param: The parameter to start from; its states start at zero.
        dtype: The dtype of the implementation, a key of `ROUNDOFF`.
        lr: Step size.
        alpha: Decay rate of n and g.
        momentum: Decay rate of delta.
        eps: Added inside the root; not 0.
        coarser: By how much to widen the bound, for an implementation that loses more than roundings.
    """

    def __init__(self, param, dtype, *, lr, alpha, momentum, eps, coarser=1):
        """Starts with the states at zero and everything exact."""
        self.unit, self.storage, self.tiny = (coarser * loss for loss in ROUNDOFF[dtype])
        compute = numpy.float64 if dtype == "float64" else numpy.float32
        self.scalars = [float(compute(value)) for value in (lr, alpha, 1 - alpha, momentum, eps)]
        self.value = {name: numpy.zeros(numpy.shape(param)) for name in ENTRIES}
        self.value["param"] += param
        self.radius = {name: numpy.zeros(numpy.shape(param)) for name in ENTRIES}

    def step(self, grad):
        """Goes on by one step."""
        lr, alpha, one_minus_alpha, momentum, eps = self.scalars
        w, n, g, delta = self.value.values()
        w_radius, n_radius, g_radius, delta_radius = self.radius.values()
        x = numpy.asarray(grad, "f8")

        t = one_minus_alpha * x
        old_g = alpha * g
        n = alpha * n + t * x
        g = old_g + t
        # Up to three roundings of each term of n: its product or products, and the sum. Of g: both products, the sum.
        n_radius = self._rounded(alpha * n_radius, n, n, n) + self.tiny * numpy.abs(x)
        g_radius = self._rounded(alpha * g_radius, old_g, t, g)

        v = numpy.maximum(n - g * g, 0)
        v_radius = self._rounded(n_radius + (2 * numpy.abs(g) + g_radius) * g_radius, n, g * g)

        # The quotient at either end of v. The sum with eps, the root, lr x and the quotient round.
        low, mid, high = (1 / numpy.sqrt(u + eps) for u in (v + v_radius, v, numpy.maximum(v - v_radius, 0)))
        quotient = lr * x * mid
        largest = numpy.abs(lr * x) * high
        spread = numpy.abs(lr * x) * numpy.maximum(high - mid, mid - low)
        quotient_radius = self._rounded(spread, *[largest] * 4) + self.tiny * high

        old_delta = momentum * delta
        delta = old_delta - quotient
        delta_radius = self._rounded(momentum * delta_radius + quotient_radius, old_delta, delta)
        w = w + delta
        w_radius = self._rounded(w_radius + delta_radius, w)

        self.value = dict(zip(ENTRIES, (w, n, g, delta)))
        self.radius = {
            name: radius + self.storage * (numpy.abs(self.value[name]) + radius) + self.tiny
            for name, radius in zip(ENTRIES, (w_radius, n_radius, g_radius, delta_radius))
        }

    def allowed(self, name):
        """The distance allowed between two implementations, and between one and `value`, which is rounded too."""
        return 2 * self.radius[name]

    def assert_met_by(self, *runs):
        """Asserts that dicts of param, n, g and delta are within the bound of the exact rule and of each other."""
        for name in ENTRIES:
            values = [self.value[name], *(numpy.asarray(run[name], "f8") for run in runs)]
            distance = numpy.max(values, axis=0) - numpy.min(values, axis=0)
            ratio = numpy.max(distance / self.allowed(name), initial=0)
            assert ratio <= 1, f"{name}: {ratio:.3g} times the distance that rounding explains"

    def _rounded(self, radius, *results):
        """The radius after roundings to `results`, each known to within the radius, and as many underflows."""
        return radius + sum(self.unit * (numpy.abs(result) + radius) + self.tiny for result in results)


def start_at(param):
    """A parameter, and its states at zero."""
    return {"param": param.copy(), **{name: numpy.zeros_like(param) for name in ("n", "g", "delta")}}


def gradients(dtype, steps, size=2000):
    """Gradients that vary about zero in some elements and about a mean in others, over many magnitudes."""
    rng = numpy.random.RandomState(313)
    magnitude = 10 ** rng.uniform(-6, {"float16": 1.5, "float32": 6, "float64": 6}[dtype], size)
    mean = rng.randint(0, 3, size)
    return [(magnitude * (mean + rng.standard_normal(size))).astype(dtype) for _ in range(steps)]

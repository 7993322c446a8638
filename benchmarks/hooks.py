"""Time updates with the hooks that most training scripts use: gradient clipping, and weight decay.

torch is timed with its own `clip_grad_norm_`, called before `step`, and its own `weight_decay`. optax is left out.
Run it by `python -m benchmarks.hooks` from the repository's root; it is also part of `python -m benchmarks`.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any, Iterator, NamedTuple

from rmsprop_graves import RMSpropGraves, kernels  # isort: split

from chainer.optimizer_hooks import GradientClipping, WeightDecay
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves

from benchmarks import libraries, models, report, timing
from benchmarks.libraries import (
    ALPHA,
    CHAINER,
    EPS,
    LR,
    MOMENTUM,
    NUMBA,
    NUMPY,
    TORCH,
    TORCH_COMPILED,
    Arrays,
    Contender,
    why_left_out,
)

MODELS = ("200 of 100", "120 of 65,536", "4 of ten million")
NORM, RATE = 5.0, 1e-4


class Hooks(NamedTuple):
    """Which hooks an update has, and the name of this combination."""

    name: str
    clips: bool
    decays: bool


NONE = Hooks("none", clips=False, decays=False)
CHOICES = (
    NONE,
    Hooks("GradientClipping(5)", clips=True, decays=False),
    Hooks("WeightDecay(1e-4)", clips=False, decays=True),
    Hooks("both", clips=True, decays=True),
)


def measure_case(model: str, threads: int, quick: bool) -> list[dict[str, Any]]:
    """Time the update of a model of float32 parameters with each choice of hooks, in turn.

    Returns:
        A case for each choice, like a case without hooks, with the name of the choice as ``hooks``.
    """
    shapes = models.SYNTHETIC[model]
    arrays = libraries.draw(shapes, "float32")
    ways = list(_chainers(arrays, threads))
    if not why_left_out("torch"):
        ways += TorchModel(arrays, threads).contenders()
    contenders = [way._replace(name=f"{way.name}; {hooks.name}") for hooks, way in ways]
    seconds = timing.time_in_turn(contenders, **({"budget": 0, "fewest": 3} if quick else {"budget": 30}))
    size = models.size(shapes)
    return [
        {
            "model": model,
            "dtype": "float32",
            "hooks": hooks.name,
            "parameters": len(shapes),
            "elements": size,
            "seconds": {way.name: seconds[f"{way.name}; {hooks.name}"] for of, way in ways if of == hooks},
        }
        for hooks in CHOICES
    ]


class Hooked:
    """A model with an optimizer of Chainer's class or this package's, which gets its hooks before each timing.

    Args:
        optimizer_class: The class of the optimizer.
        arrays: Parameters and gradients. The gradients are restored before each timing.
    """

    def __init__(self, optimizer_class: Any, arrays: Arrays) -> None:
        self.link = libraries.make_link(arrays)
        self._grads = arrays.grads
        self._optimizer = optimizer_class(LR, ALPHA, MOMENTUM, EPS).setup(self.link)
        self._clipping, self._decay = GradientClipping(NORM), WeightDecay(RATE)
        self._added: list[Any] = []

    def contender(self, name: str, threads: int, hooks: Hooks, kernel: str) -> Contender:
        """Return the update with these hooks and this kernel. Chainer's class ignores the kernel."""

        def prepare() -> None:
            kernels.use_on_cpu(kernel)
            kernels.set_num_threads(threads)
            while self._added:
                self._optimizer.remove_hook(self._added.pop().name)
            for hook, is_chosen in ((self._clipping, hooks.clips), (self._decay, hooks.decays)):
                if is_chosen:
                    self._optimizer.add_hook(hook)
                    self._added.append(hook)
            for param, grad in zip(self.link.params(), self._grads):
                param.grad[...] = grad
            self._clipping.threshold = NORM

        def clip_and_update() -> None:
            # Otherwise gradients that are already clipped would not be scaled again, whereas torch always scales them.
            self._clipping.threshold *= 0.99
            self._optimizer.update()

        return Contender(name, threads, clip_and_update if hooks.clips else self._optimizer.update, prepare)


def _chainers(arrays: Arrays, threads: int) -> Iterator[tuple[Hooks, Contender]]:
    """Yield the updates by Chainer's class and by this package's, both with Chainer's hooks."""
    chainers, ours = (Hooked(optimizer_class, arrays) for optimizer_class in (ChainerRMSpropGraves, RMSpropGraves))
    for hooks in CHOICES:
        yield hooks, chainers.contender(CHAINER, 1, hooks, "numpy")
        if not why_left_out("numba"):
            yield hooks, ours.contender(NUMBA, threads, hooks, "numba")
        yield hooks, ours.contender(NUMPY, 1, hooks, "numpy")


class TorchModel:
    """torch's parameters, and their optimizers: with and without weight decay, with and without `foreach`.

    Args:
        arrays: Parameters and gradients. The gradients are restored before each timing.
        threads: The number of threads that torch uses.
    """

    def __init__(self, arrays: Arrays, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._threads = threads
        self.params = [torch.tensor(array, requires_grad=True) for array in arrays.params]
        self._grads = [torch.tensor(grad) for grad in arrays.grads]
        for param in self.params:
            param.grad = torch.empty_like(param)
        self._optimizers = {
            (foreach, decays): torch.optim.RMSprop(
                self.params, LR, ALPHA, EPS, RATE if decays else 0, MOMENTUM, centered=True, foreach=foreach
            )
            for foreach in (True, False)
            for decays in (True, False)
        }

    def contenders(self) -> Iterator[tuple[Hooks, Contender]]:
        """Yield the step of each kind with each choice of hooks."""
        is_compiled = not why_left_out(TORCH_COMPILED)
        if is_compiled:
            libraries.forget_compiled()
        for hooks in CHOICES:
            for name, foreach in zip(TORCH, (True, False)):
                yield hooks, self._contender(name, hooks, foreach)
            if is_compiled:
                yield hooks, self._contender(TORCH_COMPILED, hooks, foreach=True)

    def _contender(self, name: str, hooks: Hooks, foreach: bool) -> Contender:
        import torch

        optimizer = self._optimizers[foreach, hooks.decays]

        def clip_and_step() -> None:
            torch.nn.utils.clip_grad_norm_(self.params, NORM, foreach=foreach)
            optimizer.step()

        update: Any = clip_and_step if hooks.clips else optimizer.step
        if name == TORCH_COMPILED:
            # torch never traces into a step, so it compiles the clipping and the step as two graphs.
            update = libraries.CompiledStep(update, graphs=2 if hooks.clips else 1)

        def prepare() -> None:
            for param, grad in zip(self.params, self._grads):
                param.grad.copy_(grad)
            # As in libraries.py: constant gradients would lead to NaN.
            for state in optimizer.state.values():
                state["grad_avg"].zero_()
            if name == TORCH_COMPILED:
                update.check()

        return Contender(name, self._threads, update, prepare, spins=self._threads > 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hooks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, without torch's compiled step")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL", help="default: all")
    options = parser.parse_args()
    if options.quick:
        libraries.leave_out(TORCH_COMPILED, "torch takes a minute to compile the step of each model")
    results: dict[str, Any] = {"hooks": []}
    for model in options.models:
        results["hooks"] += measure_case(model, kernels.get_num_threads(), options.quick)
    print(report.hooks(results))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # other libraries warn of future changes
    main()

"""The shapes of the parameters of the models, and the sources of the shapes."""

from __future__ import annotations

from math import prod
from typing import List, Tuple

Shapes = List[Tuple[int, ...]]

# No real networks: from many small parameters to few large ones.
SYNTHETIC: dict[str, Shapes] = {
    "200 of 100": [(100,)] * 200,
    "200 of 4,096": [(4_096,)] * 200,
    "120 of 65,536": [(65_536,)] * 120,
    "16 of one million": [(1_000_000,)] * 16,
    "4 of ten million": [(10_000_000,)] * 4,
}


def nature_dqn(actions: int = 18) -> Shapes:
    """Mnih et al., Human-level control through deep reinforcement learning, Nature 518, 529-533, 2015, Methods.

    Its games have 4 to 18 actions.
    """
    return [
        *((32, 4, 8, 8), (32,)),
        *((64, 32, 4, 4), (64,)),
        *((64, 64, 3, 3), (64,)),
        *((512, 64 * 7 * 7), (512,)),
        *((actions, 512), (actions,)),
    ]


def lstm_language_model(units: int = 650, words: int = 10_000) -> Shapes:
    """The medium model of Zaremba et al., Recurrent Neural Network Regularization, arXiv 1409.2329, 2014.

    The shapes are from chainer/examples/ptb/train_ptb.py with --unit 650: an embedding, two L.LSTM and an L.Linear.
    """
    lstm: Shapes = [(4 * units, units), (4 * units,), (4 * units, units)]  # upward W and b, lateral W
    return [(words, units), *lstm, *lstm, (words, units), (words,)]


def resnet50() -> Shapes:
    """He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, 2015.

    The shapes are from chainer.links.ResNet50Layers(pretrained_model=None), whose first convolution has a bias.
    """

    def convolution(inputs: int, outputs: int, size: int) -> Shapes:
        return [(outputs, inputs, size, size), (outputs,), (outputs,)]  # the last two are the normalization's

    shapes = [*convolution(3, 64, 7), (64,)]
    inputs = 64
    for blocks, middle in ((3, 64), (4, 128), (6, 256), (3, 512)):
        outputs = 4 * middle
        for block in range(blocks):
            shapes += convolution(inputs, middle, 1) + convolution(middle, middle, 3) + convolution(middle, outputs, 1)
            if block == 0:
                shapes += convolution(inputs, outputs, 1)
            inputs = outputs
    return [*shapes, (1000, 2048), (1000,)]


REAL: dict[str, Shapes] = {
    "Nature DQN": nature_dqn(),
    "LSTM language model": lstm_language_model(),
    "ResNet-50": resnet50(),
}


def size(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes)

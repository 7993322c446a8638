"""Calls of every link of ``chainer.links``. ``chainer.config.dtype`` makes each link in the dtype of the probe."""

from __future__ import annotations

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer.links.model.vision import googlenet, resnet, vgg

from .inputs import FLOATS, h, labels, large, normal, signed_labels, small, tiny, words

DTYPES = FLOATS
SEQUENCES = (small[3, 3], small[2, 3], small[1, 3])
X = normal[4, 3]
S = small[4, 2]  # the state of a recurrent link
STEP = small[4, 3]


def _applied(link, *args, steps=1, **kwargs):
    """Calls a link. Returns the last result, and the link for its parameters, persistent values and gradients."""
    for _ in range(steps):
        result = link(*args, **kwargs)
    return result, link


def _used(link, *args):
    """Calls a link once in training mode, and then in test mode."""
    link(*args)
    with chainer.using_config("train", False):
        return link(*args), link


def _mixed(link_class, *args, **kwargs):
    """Makes a link with float32 parameters for float16 arrays."""
    with chainer.using_config("dtype", chainer.mixed16):
        return link_class(*args, **kwargs)


def _image(link_class, *args, n=2, **kwargs):
    return lambda x=normal[(2, 2) + (5,) * n]: _applied(link_class(*args, **kwargs), x)


def _rnn(link_class, cells=False):
    return (
        lambda xs=SEQUENCES, h=h: _applied(link_class(2, 3, 2, h(0.25)), *(None,) * (1 + cells), xs),
        lambda state=small[2 * (1 + ("Bi" in link_class.__name__)), 3, 2], xs=SEQUENCES: _applied(
            link_class(2, 3, 2, 0.0), *(state,) * (1 + cells), xs
        ),
    )


def _stateful(link_class, *args):
    return lambda x=STEP: _applied(link_class(3, 2, *args), x, steps=3)


def _statistics(link_class, *args, **options):
    """Probes of a normalization: over many steps, with numbers of every form, in training and test mode."""
    return (
        lambda x=normal[4, 4], h=h: _applied(link_class(4, *args, decay=h(0.9), eps=h(1e-3)), x, steps=3, **options),
        lambda x=normal[4, 4]: _applied(link_class(4, *args), x, steps=2000, **options),
        lambda x=normal[4, 4], h=h: _used(link_class(4, *args, eps=h(1e-3)), x),
        lambda x=large[4, 4]: _applied(link_class(4, *args), x, steps=30, **options),
    )


def _vision(prepare, channels_first=True):
    image = numpy.arange(3 * 5 * 4).reshape(3, 5, 4) * 4
    return lambda: (prepare(image.astype("u1"), size=None), prepare(image[:1].astype("f"), size=None))


def _features(link_class, layer):
    """Probes of a large network: the output of one layer."""

    def probe(x=normal.single[1, 3, 32, 32]):
        with chainer.using_config("train", False):
            return link_class(pretrained_model=None)(x, layers=[layer])[layer].array

    return probe


def _extracted(link_class, layer):
    """Returns the output of one layer of a large network for an image as Pillow loads it."""
    image = (numpy.arange(3 * 32 * 32) % 251).reshape(3, 32, 32).astype("u1")
    return link_class(pretrained_model=None).extract([image], layers=[layer], size=None)[layer].array


def _shrinking(link, *steps):
    """Calls a link with batches that get smaller, as sequences end."""
    return [link(step) for step in steps], link.c, link.h, link


class _Doubled(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.linear = L.Linear(3, 3)

    def forward(self, x):
        return self.linear(x) * 2


def _reports(classifier, x, t):
    reporter = chainer.Reporter()
    reporter.add_observer("main", classifier)
    with reporter:
        classifier(x, t)
    return reporter.observation


LINKS = {
    # Activations.
    "Maxout": (
        lambda x=X: _applied(L.Maxout(3, 2, 2), x),
        lambda x=X, w=normal.raw[2, 2, 3], b=normal.raw[2, 2]: _applied(L.Maxout(3, 2, 2, w, b), x),
        lambda x=X, h=h: _applied(
            L.Maxout(3, 2, 2, lambda array: array.fill(0.5), lambda array: array.fill(h(0.1))), x
        ),
    ),
    "PReLU": lambda x=X, h=h: _applied(L.PReLU((3,), h(0.1)), x),
    "SimplifiedDropconnect": lambda x=X, h=h: _applied(L.SimplifiedDropconnect(3, 2, h(0.1)), x),
    "Swish": (lambda x=X, h=h: _applied(L.Swish((3,), h(0.75)), x), lambda x=X: _applied(L.Swish(None), x)),
    # Connections.
    "Linear": (
        lambda x=X: _applied(L.Linear(3, 2), x),
        lambda x=normal[2, 2, 3], h=h: _applied(L.Linear(None, 2, initial_bias=h(0.1)), x, n_batch_axes=2),
        lambda x=X, h=h: _applied(L.Linear(3, 2, initialW=h(0.1)), x),
        lambda x=X, w=normal.raw[2, 3], b=normal.raw[2]: _applied(L.Linear(3, 2, False, w, b), x),
        lambda x=X, w=normal.raw[2, 3], b=normal.raw[2]: _applied(L.Linear.from_params(w, b), x),
        lambda x=normal.half[4, 3]: _applied(_mixed(L.Linear, 3, 2), x),
    ),
    "Bias": (
        lambda x=X: _applied(L.Bias(1, (3,)), x),
        lambda x=X, b=normal[4]: _applied(L.Bias(0), x, b),
    ),
    "Scale": (
        lambda x=X: _applied(L.Scale(1, (3,), True), x),
        lambda x=X, w=normal[4]: _applied(L.Scale(0), x, w),
        lambda x=X, w=normal[4]: _applied(L.Scale(0, None, True, (4,)), x, w),
    ),
    "Bilinear": (
        lambda e=normal[2, 3], f=normal[2, 4]: _applied(L.Bilinear(3, 4, 2), e, f),
        lambda e=normal[2, 3], f=normal[2, 4], h=h: _applied(
            L.Bilinear(3, 4, 2, initialW=h(0.1), initial_bias=(h(0.1), h(0.2), h(0.3))), e, f
        ),
        lambda e=normal[2, 3], f=normal[2, 4]: _applied(L.Bilinear(3, 4, 2, nobias=True), e, f),
    ),
    **{
        f"{kind}{n}D": (
            _image(getattr(L, f"{kind}{n}D"), 2, 4, 2, stride=2, pad=1, n=n),
            _image(getattr(L, f"{kind}{n}D"), None, 4, 2, groups=2, initial_bias=0.1, n=n),
        )
        for kind in ("Convolution", "Deconvolution")
        for n in (1, 2, 3)
    },
    "ConvolutionND": _image(L.ConvolutionND, 2, 2, 4, 2, cover_all=True, dilate=2),
    "DeconvolutionND": _image(L.DeconvolutionND, 2, 2, 4, 2, stride=2),
    "DepthwiseConvolution2D": _image(L.DepthwiseConvolution2D, 2, 2, 2, initial_bias=0.1),
    "DilatedConvolution2D": _image(L.DilatedConvolution2D, 2, 2, 2, 1, 1, 2),
    "DeformableConvolution2D": (
        lambda x=normal[1, 2, 4, 5]: _applied(
            L.DeformableConvolution2D(2, 2, 2, offset_initialW=0.1, offset_initial_bias=0.1), x
        )
    ),
    "LocalConvolution2D": lambda x=normal[2, 2, 3, 4]: _applied(L.LocalConvolution2D(2, 3, (3, 4), 2), x),
    "MLPConvolution2D": _image(L.MLPConvolution2D, 2, (3, 2), 2),
    "EmbedID": (
        lambda t=signed_labels[5]: _applied(L.EmbedID(3, 2, ignore_label=-1), t),
        lambda t=labels[5], h=h: _applied(L.EmbedID(3, 2, initialW=h(0.1)), t),
    ),
    "Highway": lambda x=X, h=h: _applied(L.Highway(3, activate=F.tanh, init_bt=h(-1)), x),
    "Inception": _image(L.Inception, 2, 2, 1, 2, 1, 2, 1),
    "InceptionBN": (
        # These return no link: the gradients of parameters before a normalization are zero but for rounding.
        lambda x=normal[2, 2, 5, 5]: L.InceptionBN(2, 2, 1, 2, 1, 2, "avg", 2)(x),
        lambda x=normal[2, 2, 5, 5]: L.InceptionBN(2, 0, 1, 2, 1, 2, "max", stride=2)(x),
    ),
    "Parameter": lambda: L.Parameter(numpy.linspace(0, 1, 3, dtype="f"))(),
    # Recurrent.
    "GRU": lambda x=STEP: _applied(L.GRU(3, 2), x),
    "StatefulGRU": _stateful(L.StatefulGRU),
    "StatelessGRU": lambda state=S, x=STEP: _applied(L.StatelessGRU(3, 2), state, x),
    "StatefulMGU": _stateful(L.StatefulMGU),
    "StatelessMGU": lambda state=S, x=STEP: _applied(L.StatelessMGU(3, 2), state, x),
    "LSTM": (
        _stateful(L.LSTM),
        lambda x=STEP, y=small[2, 3]: _shrinking(L.LSTM(None, 2), x, y),
        lambda x=STEP, h=h: _applied(
            L.LSTM(3, 2, lateral_init=h(0.1), upward_init=h(0.1), bias_init=h(0.25), forget_bias_init=h(1)), x, steps=2
        ),
    ),
    "StatelessLSTM": lambda c=S, s=S, x=STEP: _applied(L.StatelessLSTM(3, 2), c, s, x),
    "StatefulPeepholeLSTM": _stateful(L.StatefulPeepholeLSTM),
    "StatefulZoneoutLSTM": (
        _stateful(L.StatefulZoneoutLSTM),
        lambda x=STEP, h=h: _applied(L.StatefulZoneoutLSTM(3, 2, h(0.1), h(0.25)), x, steps=3),
    ),
    "ChildSumTreeLSTM": (
        lambda c=S, s=S, x=STEP: _applied(L.ChildSumTreeLSTM(3, 2), c, c, s, s, x),
        lambda c=S, s=S: _applied(L.ChildSumTreeLSTM(3, 2), c, None, None, s, None),
        lambda x=STEP: _applied(L.ChildSumTreeLSTM(3, 2), x),
    ),
    "NaryTreeLSTM": (
        lambda c=S, s=S, x=STEP: _applied(L.NaryTreeLSTM(3, 2, 2), c, c, s, s, x),
        lambda c=S, s=S: _applied(L.NaryTreeLSTM(3, 2, 2), c, None, None, s, None),
    ),
    **{name: _rnn(getattr(L, name)) for name in words("NStepRNNTanh NStepRNNReLU NStepBiRNNTanh NStepBiRNNReLU")},
    **{name: _rnn(getattr(L, name)) for name in words("NStepGRU NStepBiGRU")},
    **{name: _rnn(getattr(L, name), cells=True) for name in words("NStepLSTM NStepBiLSTM")},
    # Losses.
    "BinaryHierarchicalSoftmax": (
        lambda x=X, t=labels[4]: _applied(L.BinaryHierarchicalSoftmax(3, ((0, 1), 2)), x, t),
        lambda: str(L.BinaryHierarchicalSoftmax.create_huffman_tree({0: 2, 1: numpy.float32(5), 2: numpy.uint8(1)})),
    ),
    "BlackOut": lambda x=X, t=labels[4]: _applied(L.BlackOut(3, [1, 2, 3, 4], 2), x, t),
    "NegativeSampling": (
        lambda x=X, t=labels[4]: _applied(L.NegativeSampling(3, [1, 2, 3, 4], 2), x, t),
        lambda x=X, t=labels[4], h=h: _applied(L.NegativeSampling(3, [10, 200, 3], 3, h(0.75)), x, t, reduce="no"),
        lambda x=X, t=labels[4]: _applied(L.NegativeSampling(3, numpy.array([100, 200, 3], "u1"), 3), x, t),
    ),
    "CRF1d": (
        lambda xs=(normal[2, 3], normal[2, 3], normal[1, 3]), h=h: _applied(
            L.CRF1d(3, h(0.1)), xs, [numpy.array(t, "i") for t in ([0, 1], [2, 1], [0])]
        ),
        lambda xs=(normal[2, 3], normal[2, 3]): L.CRF1d(3, 0.1).argmax(xs),
        lambda xs=(normal[2, 3], normal[3, 3]): _applied(
            L.CRF1d(3), xs, [numpy.array(t, "i") for t in ([0, 1], [2, 1, 0])], transpose=True
        ),
        lambda xs=(normal[2, 3], normal[3, 3]): L.CRF1d(3, 0.1).argmax(xs, transpose=True),
    ),
    "Classifier": (
        lambda x=X, t=labels[4]: _applied(L.Classifier(L.Linear(3, 3)), x, t),
        lambda x=normal[4000, 3], t=labels[4000]: _applied(L.Classifier(L.Linear(3, 3), F.hinge, F.accuracy), x, t),
        lambda x=X, t=labels[4]: _reports(L.Classifier(_Doubled()), x, t),
        lambda x=X, t=labels[4]: _applied(L.Classifier(L.Linear(3, 3), label_key=0), t, x),
        lambda x=X, t=labels[4]: _applied(L.Classifier(L.Linear(3, 3), label_key="t"), x, t=t),
    ),
    # Normalizations.
    "BatchNormalization": (
        *_statistics(L.BatchNormalization),
        lambda x=normal.half[4, 3], h=h: _applied(_mixed(L.BatchNormalization, 3, eps=h(1e-4)), x, steps=300),
        lambda x=normal[4, 3, 2], h=h: _applied(
            L.BatchNormalization(axis=(0, 2), initial_gamma=h(0.1), initial_beta=h(0.75), initial_avg_var=h(2)), x
        ),
        lambda x=normal[4, 3]: _applied(L.BatchNormalization(3), x, finetune=True, steps=20),
        lambda x=tiny[4, 3]: _applied(L.BatchNormalization(3), x, steps=20),
        lambda x=normal[4, 3]: _applied(L.BatchNormalization(3, use_gamma=False, use_beta=False), x),
    ),
    "BatchRenormalization": (
        *_statistics(L.BatchRenormalization),
        lambda x=normal[4, 3], h=h: _applied(L.BatchRenormalization(3, h(1.5), h(0.1)), x, steps=20),
        lambda x=normal[4, 3]: _applied(L.BatchRenormalization(3, 1.5, 0.1), x, finetune=True, steps=20),
        lambda x=normal[4, 3]: _applied(L.BatchRenormalization(3, use_gamma=False, use_beta=False), x),
    ),
    "DecorrelatedBatchNormalization": (
        lambda x=normal[6, 4], h=h: _applied(
            L.DecorrelatedBatchNormalization(4, 2, decay=h(0.9), eps=h(1e-2), dtype=x.dtype), x, steps=3
        ),
        lambda x=normal[6, 4]: _applied(L.DecorrelatedBatchNormalization(4, 2, eps=1e-2), x, steps=300),
        lambda x=normal[6, 4]: _used(L.DecorrelatedBatchNormalization(4, 2, eps=1e-2), x),
        lambda x=normal[6, 4]: _applied(L.DecorrelatedBatchNormalization(4, 2, eps=1e-2), x, finetune=True, steps=20),
    ),
    "GroupNormalization": lambda x=normal[2, 4, 3], h=h: _applied(
        L.GroupNormalization(2, eps=h(1e-3), initial_gamma=h(0.1), initial_beta=h(0.75)), x
    ),
    "LayerNormalization": (
        lambda x=normal[4, 3], h=h: _applied(L.LayerNormalization(3, h(1e-3), h(0.1), h(0.75)), x),
        lambda x=normal[4, 3]: _applied(L.LayerNormalization(), x),
    ),
    # Networks for images.
    "GoogLeNet": (
        _features(L.GoogLeNet, "conv1"),
        _vision(googlenet.prepare),
        lambda: _extracted(L.GoogLeNet, "conv1"),
    ),
    "ResNet50Layers": (_features(L.ResNet50Layers, "res2"), _vision(resnet.prepare)),
    "VGG16Layers": _vision(vgg.prepare),
}

PROBES = {"chainer.links": LINKS}

NEEDS = {f"chainer.links.{name}": "PIL" for name in ("GoogLeNet", "ResNet50Layers", "VGG16Layers")}

LEFT_OUT = {
    "chainer.links.ResNet101Layers": "more of ResNet50Layers' blocks; 200 MB more of random weights",
    "chainer.links.ResNet152Layers": "more of ResNet50Layers' blocks; 300 MB more of random weights",
    "chainer.links.TheanoFunction": "needs Theano, which no supported Python imports",
    "chainer.links.VGG19Layers": "VGG16Layers with more layers; 570 MB of random weights",
}

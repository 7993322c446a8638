"""Calls of every function of ``chainer.functions``."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy
from chainer.utils import WalkerAlias

from .inputs import (
    bits,
    definite,
    fractions,
    h,
    labels,
    large,
    low,
    normal,
    positive,
    signed_labels,
    small,
    tiny,
    words,
)

# Functions of one array, elementwise or not, and an input on which they are defined and smooth.
UNARY = {
    normal: """absolute arctan ceil cos cosh erf erfc exp expm1 fix flatten floor hard_sigmoid identity logsumexp
        ndtr log_ndtr erfcx sigmoid sign sin sinh softplus square sum tan tanh relu relu6 selu softmax log_softmax
        crelu argmax argmin max min prod cumsum cumprod squeeze transpose decov batch_l2_norm_squared normalize
        fliplr flipud""",
    positive: "digamma lgamma log log10 log1p log2 rsqrt sqrt erfcinv",
    small: "arccos arcsin arctanh erfinv",
    fractions: "ndtri",
}


def _unary(function, values):
    return (
        lambda x=values[2, 3]: function(x),
        lambda x=values[()]: function(x),
        lambda x=large[2, 3]: function(x),
        lambda x=tiny[2, 3]: function(x),
    )


def _binary(function):
    return (
        lambda x=normal[2, 3], y=normal[2, 3]: function(x, y),
        lambda x=large[2, 3], y=large[2, 3]: function(x, y),
        lambda x=normal[()], y=normal[()]: function(x, y),
        lambda x=normal[2, 3], y=normal.single[2, 3]: function(x, y),
        lambda x=normal[2, 3], y=normal.double.raw[()]: function(x, y),
        lambda x=normal[2, 3], h=h: function(x, h(0.75)),
    )


def _with_axes(function):
    return (
        lambda x=normal[2, 3, 4]: (function(x, axis=1), function(x, axis=-1)),
        lambda x=large[30, 4]: function(x, axis=0),
    )


def _with_axis_tuples(function):
    return (
        *_with_axes(function),
        lambda x=normal[2, 3, 4]: (function(x, axis=(0, 2), keepdims=True), function(x, keepdims=True)),
    )


def _loss(function):
    return (
        *_of_many(function),
        lambda x=normal[4, 3], y=normal[4, 3]: function(x, y),
        lambda x=large[4, 3], y=large[4, 3]: function(x, y),
        lambda x=normal[40, 30], y=normal[40, 30]: function(x, y),
        lambda x=normal[()], y=normal[()]: function(x, y),
    )


# More elements than float16 can count.
MANY = 70000


def _of_many(function):
    """Probes of a loss over many samples, with and without loss scaling."""
    return (
        lambda x=low[MANY, 2], y=low[MANY, 2]: function(x, y) * 1024,
        lambda x=low[MANY, 2], y=low[MANY, 2]: function(x, y),
    )


def _of_many_labels(function):
    return (
        lambda x=low[MANY, 2], t=bits[MANY]: function(x, t) * 1024,
        lambda x=low[MANY, 2], t=bits[MANY]: function(x, t),
    )


def _with_reduction(function, **options):
    return (
        lambda x=normal[4, 3], y=normal[4, 3]: function(x, y, reduce="mean", **options),
        lambda x=normal[4, 3], y=normal[4, 3]: function(x, y, reduce="no", **options),
        lambda x=large[4, 3], y=large[4, 3]: function(x, y, **options),
        lambda x=normal[40, 30], y=normal[40, 30]: function(x, y, **options),
    )


def _tested(function, *args):
    """Calls a function in test mode."""
    with chainer.using_config("train", False):
        return function(*args)


def _fortran(rows, columns):
    """Returns the row and column of every element, column by column."""
    return (
        numpy.tile(numpy.arange(rows, dtype="i"), columns),
        numpy.repeat(numpy.arange(columns, dtype="i"), rows),
    )


def _ctc(xs, t, input_length=None, label_length=None, reduce="mean"):
    lengths = [length if length is None else numpy.array(length, "i") for length in (input_length, label_length)]
    return F.connectionist_temporal_classification(xs, numpy.array(t, "i"), 0, *lengths, reduce)


def _scaled(function):
    """Probes of a function that adds or multiplies along an axis."""
    return (
        lambda x=normal[2, 3, 4], y=normal[3]: function(x, y),
        lambda x=normal[2, 3, 4], y=normal[3, 4]: function(x, y, axis=1),
        lambda x=large[2, 3], y=large[2]: function(x, y, axis=0),
        lambda x=normal[2, 3], y=normal[()]: function(x, y, axis=0),
    )


def _convolution(function, n, **options):
    x, w = (2, 4) + (5,) * n, (4, 4) + (2,) * n
    return (
        lambda x=normal[x], w=normal[w], b=normal[4]: function(x, w, b, stride=2, pad=1, **options),
        lambda x=large[x], w=normal[w]: function(x, w),
        lambda x=normal[x], w=normal[(4, 2, *w[2:])]: function(x, w, groups=2, dilate=2, **options),
    )


def _pooling(function, n, **options):
    x = (2, 2) + (5,) * n
    return (
        lambda x=normal[x]: function(x, 3, stride=2, pad=1, **options),
        lambda x=large[x]: function(x, 2, **options),
        lambda x=normal[x], h=h: function(x, h(2), stride=h(2), pad=h(1), **options),
    )


def _regions(function, *options):
    """Probes of a function of regions of interest, given as x and y of two corners."""
    regions = numpy.array([[0, 0, 6, 3], [1, 2, 4, 5], [5, 1, 2, 3]])
    indices = numpy.array([0, 1, 0], "i")
    return (
        lambda x=normal[2, 2, 6, 8], h=h: function(x, regions.astype(x.dtype), indices, *options, h(0.5)),
        lambda x=large[2, 2, 6, 8]: function(x, regions.astype(x.dtype), indices, *options, 1.0),
    )


def _rnn(function, gates, cells=False, directions=1, **options):
    """Probes of two layers of two units over sequences of three, two and one items of three numbers."""
    ws = tuple(
        tuple(small[2, _inputs_of(layer, gate < gates // 2, directions)] for gate in range(gates))
        for layer in range(2 * directions)
    )
    bs = tuple(tuple(small[2] for _ in range(gates)) for _ in range(2 * directions))
    states = (small[2 * directions, 3, 2],) * (1 + cells)
    xs = (small[3, 3], small[2, 3], small[1, 3])
    return (
        lambda states=states, ws=ws, bs=bs, xs=xs: function(2, 0.0, *states, ws, bs, xs, **options),
        lambda states=states, ws=ws, bs=bs, xs=xs, h=h: function(2, h(0.5), *states, ws, bs, xs, **options),
    )


def _inputs_of(layer, is_of_inputs, directions):
    """Returns the input size of a gate's weights, which multiply a state, the input, or the lower layer's output."""
    return 2 if not is_of_inputs else 3 if layer < directions else 2 * directions


def _summaries(function):
    return (
        lambda y=normal[8, 3], t=labels[8]: function(y, t),
        lambda y=large[8, 3], t=signed_labels[8]: function(y, t, label_num=4, ignore_label=-1),
        lambda y=normal[5000, 2], t=bits[5000]: function(y, t),
    )


FUNCTIONS = {name: _unary(getattr(F, name), values) for values, names in UNARY.items() for name in names.split()}
FUNCTIONS.update(
    {
        # Elementwise, of two arrays or with numbers.
        **{
            name: _binary(getattr(F, name))
            for name in words("""add arctan2 maximum minimum fmod squared_difference squared_error
        absolute_error""")
        },
        **{name: FUNCTIONS[name] + _with_axes(getattr(F, name)) for name in words("argmax argmin cumprod cumsum")},
        **{name: FUNCTIONS[name] + _with_axis_tuples(getattr(F, name)) for name in words("max min prod sum")},
        **{
            name: FUNCTIONS[name] + _with_axes(getattr(F, name))
            for name in words("softmax log_softmax crelu logsumexp")
        },
        "add": (*_binary(F.add), lambda x=normal[2, 3], y=normal[2, 3], z=normal[2, 3]: F.add(x, y, z)),
        "average": (
            *_unary(F.average, normal),
            lambda x=low[MANY]: F.average(x * x) * 1024,
            lambda x=low[MANY, 2]: F.average(x * x, axis=0) * 1024,
            *_with_axis_tuples(F.average),
            lambda x=normal[2, 3], w=positive[3]: F.average(x, axis=-1, weights=w),
            lambda x=normal[2, 3], w=positive[2, 3]: F.average(x, axis=(-1, 0), weights=w, keepdims=True),
            lambda x=large[30, 3], w=positive[30, 3]: F.average(x, weights=w),
        ),
        "clip": (
            lambda x=normal[2, 3], h=h: F.clip(x, h(-0.5), h(0.75)),
            lambda x=large[2, 3], h=h: F.clip(x, h(1), h(3)),
            lambda x=large[2, 3]: F.clip(x, -1000.0, 100000.0),
            lambda x=normal[2, 3]: F.clip(x, None, 1.0),
            lambda x=normal[()], h=h: F.clip(x, h(-0.5), h(0.75)),
        ),
        "clipped_relu": (
            lambda x=normal[2, 3], h=h: F.clipped_relu(x, h(0.75)),
            lambda x=large[2, 3], h=h: F.clipped_relu(x, h(100)),
            lambda x=normal[()], h=h: F.clipped_relu(x, h(0.75)),
        ),
        "elu": (
            lambda x=normal[2, 3], h=h: F.elu(x, h(0.75)),
            lambda x=normal[()], h=h: F.elu(x, h(0.1)),
            lambda x=large[2, 3]: F.elu(x),
            lambda x=normal[2, 3], h=h: F.elu(x, h(-0.5)),
        ),
        "leaky_relu": (
            lambda x=normal[2, 3], h=h: F.leaky_relu(x, h(0.1)),
            lambda x=large[2, 3], h=h: F.leaky_relu(x, h(0.25)),
            lambda x=normal[()], h=h: F.leaky_relu(x, h(0.25)),
            lambda x=normal[2, 3], h=h: F.leaky_relu(x, h(-0.1)),
        ),
        "rrelu": (
            lambda x=normal[2, 3], h=h: F.rrelu(x, h(0.1), h(0.25)),
            lambda x=normal[2, 3], r=fractions.raw[2, 3]: F.rrelu(x, r=r, return_r=True),
            lambda x=normal[()]: F.rrelu(x),
            lambda x=normal[2, 3], h=h: _tested(F.rrelu, x, h(0.1), h(0.25)),
        ),
        "selu": (*_unary(F.selu, normal), lambda x=normal[2, 3], h=h: F.selu(x, h(1.5), h(1.1))),
        "softplus": (*_unary(F.softplus, normal), lambda x=normal[2, 3], h=h: F.softplus(x, h(2.5))),
        "prelu": (
            lambda x=normal[2, 3, 4], w=normal[3]: F.prelu(x, w),
            lambda x=normal[2, 3], w=normal[()]: F.prelu(x, w),
        ),
        "swish": (lambda x=normal[2, 3], beta=normal[3]: F.swish(x, beta),),
        "maxout": (
            lambda x=normal[2, 6]: F.maxout(x, 3),
            lambda x=normal[2, 4, 3]: F.maxout(x, 2, axis=1),
        ),
        "linear_interpolate": (
            lambda p=fractions[2, 3], x=normal[2, 3], y=normal[2, 3]: F.linear_interpolate(p, x, y),
        ),
        "polygamma": (
            lambda x=positive[2, 3]: F.polygamma(numpy.ones((2, 3), "i"), x),
            lambda x=positive[()]: F.polygamma(numpy.ones((), "i"), x),
        ),
        "zeta": (lambda q=positive[2, 3]: F.zeta(numpy.full((2, 3), 2.5).astype(q.dtype), q),),
        "scale": _scaled(F.scale),
        "bias": _scaled(F.bias),
        # Shapes.
        "as_strided": (
            lambda x=normal[6]: F.as_strided(x, (2, 3), (1, 2), 0),
            lambda x=normal[6]: F.as_strided(x, (3, 2), (1, 1), 1),
            lambda x=normal[2, 3]: F.as_strided(F.transpose(x), (2, 2), (1, 3)),
        ),
        "broadcast": (lambda x=normal[2, 1], y=normal[3], z=normal[()]: F.broadcast(x, y, z),),
        "broadcast_to": (
            lambda x=normal[2, 1]: F.broadcast_to(x, (3, 2, 4)),
            lambda x=normal[()]: F.broadcast_to(x, (2,)),
        ),
        "cast": tuple(
            lambda x=positive[2, 3], name=name: F.cast(x, name)
            for name in ("float16", "float32", "float64", "uint8", "int32")
        ),
        "concat": (
            lambda x=normal[2, 3], y=normal[2, 1]: F.concat((x, y)),
            lambda x=normal[2, 3], y=normal.double[2, 3]: F.concat((x, y), axis=0),
        ),
        "copy": (lambda x=normal[2, 3]: F.copy(x, "@numpy"), lambda x=normal[2, 3]: F.copy(x, -1)),
        "depth2space": (lambda x=normal[1, 8, 2, 3]: F.depth2space(x, 2),),
        "space2depth": (lambda x=normal[1, 2, 4, 6]: F.space2depth(x, 2),),
        "diagonal": (lambda x=normal[3, 3, 4]: F.diagonal(x, offset=1, axis1=0, axis2=2),),
        "dstack": (lambda x=normal[2, 3], y=normal[2, 3]: F.dstack((x, y)),),
        "hstack": (lambda x=normal[2, 3], y=normal[2, 1]: F.hstack((x, y)), lambda x=normal[()]: F.hstack((x, x))),
        "vstack": (lambda x=normal[2, 3], y=normal[1, 3]: F.vstack((x, y)), lambda x=normal[()]: F.vstack((x, x))),
        "stack": (lambda x=normal[2, 3], y=normal[2, 3]: F.stack((x, y), axis=-1),),
        "expand_dims": (lambda x=normal[2, 3]: F.expand_dims(x, 1), lambda x=normal[()]: F.expand_dims(x, 0)),
        "flip": (lambda x=normal[2, 3]: F.flip(x, 1),),
        "get_item": (
            lambda x=normal[4, 3]: (F.get_item(x, (slice(None, None, -2), 1)), F.get_item(x, [0, 0, 2])),
            lambda x=normal[4, 3]: (F.get_item(x, (Ellipsis, None, numpy.int64(1))), F.get_item(x, x.array > 0)),
            lambda x=normal[4, 3], t=labels[3]: F.get_item(x, (t, numpy.array([0, 1, 1]))),
            lambda x=large[4, 3], t=labels[20]: F.get_item(x, t),
        ),
        "im2col": (lambda x=normal[1, 2, 4, 5]: F.im2col(x, 2, stride=2, pad=1, cover_all=True),),
        "moveaxis": (lambda x=normal[2, 3, 4]: F.moveaxis(x, (0, 1), (-1, 0)),),
        "rollaxis": (lambda x=normal[2, 3, 4]: F.rollaxis(x, 2, 1),),
        "swapaxes": (lambda x=normal[2, 3, 4]: F.swapaxes(x, 0, 2),),
        "transpose": (lambda x=normal[2, 3, 4]: F.transpose(x, (2, 0, 1)), lambda x=normal[2, 3]: F.transpose(x)),
        "pad": (
            lambda x=normal[2, 3]: F.pad(x, [(1, 0), (0, 2)], "constant"),
            lambda x=normal[2, 3], h=h: F.pad(x, 1, "constant", constant_values=h(2)),
            lambda x=normal[2, 3]: F.pad(x, 1, "constant", constant_values=-1),
            lambda x=normal[2, 3]: F.pad(x, 1, "constant", constant_values=((1, 2), (3, 4))),
            lambda x=normal[2, 3]: F.pad(x, 1, "edge"),
        ),
        "pad_sequence": (
            lambda xs=(normal[2, 2], normal[3, 2], normal[0, 2]): F.pad_sequence(xs),
            lambda xs=(normal[2], normal[3]), h=h: F.pad_sequence(xs, 4, h(2)),
            lambda xs=(normal[2], normal[3]): F.pad_sequence(xs, padding=-1),
            lambda xs=(normal[2], normal[3]): F.pad_sequence(xs, padding=1e6),
            lambda xs=(normal[2], normal[3]): F.pad_sequence(xs, padding=0.1),
        ),
        "permutate": (lambda x=normal[3, 2]: F.permutate(x, numpy.array([2, 0, 1]), inv=True),),
        "repeat": (
            lambda x=normal[2, 3]: F.repeat(x, (1, 2, 0), axis=1),
            lambda x=normal[2, 3]: F.repeat(x, 300),
            lambda x=normal[2, 3]: F.repeat(x, 2, -1),
        ),
        "reshape": (lambda x=normal[2, 3]: F.reshape(x, (3, -1)),),
        "resize_images": tuple(
            lambda x=normal[1, 2, 3, 4], options=options: F.resize_images(x, (5, 3), **options)
            for options in ({}, {"align_corners": False}, {"mode": "nearest", "align_corners": False})
        ),
        "scatter_add": (
            lambda a=normal[3, 2], t=labels[4], b=normal[4, 2]: F.scatter_add(a, t, b),
            lambda a=large[3], t=labels[60], b=large[60]: F.scatter_add(a, t, b),
        ),
        "select_item": (lambda x=normal[4, 3], t=labels[4]: F.select_item(x, t),),
        "separate": (lambda x=normal[2, 3]: F.separate(x, axis=1),),
        "split_axis": (
            lambda x=normal[2, 6]: F.split_axis(x, 3, 1),
            lambda x=normal[2, 6]: F.split_axis(x, numpy.array([1, 4]), 1),
        ),
        "spatial_transformer_grid": (lambda theta=normal[2, 2, 3]: F.spatial_transformer_grid(theta, (3, 4)),),
        "spatial_transformer_sampler": (
            lambda x=normal[1, 2, 4, 5], grid=normal[1, 2, 3, 3]: F.spatial_transformer_sampler(x, grid),
            lambda x=large[1, 2, 4, 5], grid=small[1, 2, 3, 3]: F.spatial_transformer_sampler(x, grid),
        ),
        "squeeze": (lambda x=normal[1, 2, 1, 3]: F.squeeze(x), lambda x=normal[1, 2, 1]: F.squeeze(x, (0, -1))),
        "sum_to": (lambda x=normal[2, 3, 4]: F.sum_to(x, (3, 1)), lambda x=large[30, 4]: F.sum_to(x, (1, 4))),
        "tile": (lambda x=normal[2, 3]: F.tile(x, (2, 1, 2)), lambda x=large[2, 1]: F.tile(x, (30, 1))),
        "transpose_sequence": (lambda xs=(normal[3, 2], normal[2, 2], normal[1, 2]): F.transpose_sequence(xs),),
        "where": (
            lambda x=normal[2, 3], y=normal[2, 3]: F.where(x.array > 0, x, y),
            lambda x=normal[2, 3]: F.where(x.array > 0, x, numpy.zeros((), x.dtype)),
            lambda x=normal[2, 3]: F.where(numpy.array([True, False, True]), x, 0.5),
        ),
        # Products of arrays, and functions based on them.
        "matmul": (
            lambda a=normal[2, 3], b=normal[3, 4]: F.matmul(a, b),
            lambda a=normal[3, 2, 2], b=normal[3, 2, 4]: F.matmul(a, b, transa=True),
            lambda a=normal[2, 3], b=normal.single[3]: F.matmul(a, b),
            lambda a=large[2, 50], b=large[50, 2]: F.matmul(a, b),
            lambda a=normal[3], b=normal[3]: F.matmul(a, b),
            lambda a=normal[3], b=normal[2, 3, 4]: F.matmul(a, b),
            lambda a=normal[2, 2, 3], b=normal[3]: F.matmul(a, b, transb=True),
        ),
        "batch_matmul": (
            lambda a=normal[2, 3], b=normal[2, 3, 4]: F.batch_matmul(a, b, transa=True),
            lambda a=large[2, 3, 4], b=large[2, 4, 3]: F.batch_matmul(a, b),
        ),
        "sparse_matmul": (
            lambda a=normal[2, 3], b=normal[3, 4]: F.sparse_matmul(
                chainer.utils.to_coo(a.array, requires_grad=True), b
            ),
            lambda a=normal[2, 2, 3], b=normal[2, 3, 4]: F.sparse_matmul(chainer.utils.to_coo(a.array), b),
            lambda a=normal[2, 3], b=normal[3, 4]: F.sparse_matmul(
                a, chainer.utils.to_coo(b.array, requires_grad=True)
            ),
            lambda a=large[3, 3], b=large[3, 4]: F.sparse_matmul(chainer.utils.to_coo(a.array), b, transa=True),
            lambda a=normal[2, 2, 3], b=normal[2, 4, 3]: F.sparse_matmul(
                chainer.utils.to_coo(a.array, requires_grad=True), b, transb=True
            ),
            lambda a=normal[2, 3], b=normal[3, 4]: F.sparse_matmul(
                chainer.utils.CooMatrix(a.array.T.ravel(), *_fortran(2, 3), (2, 3), order="F", requires_grad=True), b
            ),
        ),
        "tensordot": (
            lambda a=normal[2, 3, 4], b=normal[4, 3, 2]: F.tensordot(a, b, axes=((1, 2), (1, 0))),
            lambda a=normal[2, 3], b=normal[3, 4]: (F.tensordot(a, b, 1), F.tensordot(a, b, (1, 0))),
        ),
        "einsum": (
            lambda a=normal[2, 3], b=normal[3, 4]: F.einsum("ij,jk->k", a, b),
            lambda a=normal[3, 3]: (F.einsum("ii", a), F.einsum("ii->i", a)),
            lambda a=large[2, 50], b=large[50]: F.einsum("ij,j", a, b),
            lambda a=normal[2, 3], b=normal[3]: F.einsum(a, [0, 1], b, [1], [0]),
            lambda a=normal[2, 3, 4], b=normal[3]: F.einsum("...ij,i->...j", a, b),
            lambda a=normal[2, 3], b=normal[2]: F.einsum(a, [0, Ellipsis], b, [0], [Ellipsis]),
        ),
        "det": (lambda a=definite[3, 3]: F.det(a),),
        "batch_det": (lambda a=definite[2, 3, 3]: F.batch_det(a),),
        "inv": (lambda a=definite[3, 3]: F.inv(a),),
        "batch_inv": (lambda a=definite[2, 3, 3]: F.batch_inv(a),),
        "cholesky": (lambda a=definite[3, 3]: F.cholesky(a),),
        "fft": (
            lambda x=normal[2, 4], y=normal[2, 4]: F.fft((x, y)),
            lambda x=normal[2, 4], y=normal[2, 4]: (F.fft((x, y))[0], F.fft((x, y))[1]),
        ),
        "ifft": (lambda x=normal[2, 4], y=normal[2, 4]: F.ifft((x, y)),),
        # Connections.
        "linear": (
            lambda x=normal[2, 3], w=normal[4, 3], b=normal[4]: F.linear(x, w, b),
            lambda x=normal[2, 2, 3], w=normal[4, 3]: F.linear(x, w, n_batch_axes=2),
            lambda x=large[2, 50], w=large[2, 50]: F.linear(x, w),
            lambda x=normal[2, 3], w=normal.single[4, 3], b=normal.single[4]: F.linear(x, w, b),
            lambda x=normal[3, 1], w=normal[2, 3]: F.linear(F.transpose(x), w),
        ),
        "bilinear": (
            lambda e=normal[2, 3], f=normal[2, 4], w=normal[3, 4, 2]: F.bilinear(e, f, w),
            lambda e=normal[2, 3], f=normal[2, 4], w=normal[3, 4, 2], v1=normal[3, 2], v2=normal[4, 2], b=normal[2]: (
                F.bilinear(e, f, w, v1, v2, b)
            ),
        ),
        "embed_id": (
            lambda t=labels[5], w=normal[3, 2]: F.embed_id(t, w),
            lambda t=signed_labels[5], w=normal[3, 2]: F.embed_id(t, w, ignore_label=-1),
            lambda t=labels[5, 40], w=large[3, 2]: F.embed_id(t, w),
        ),
        **{f"convolution_{n}d": _convolution(getattr(F, f"convolution_{n}d"), n, cover_all=True) for n in (1, 2, 3)},
        "convolution_nd": _convolution(F.convolution_nd, 2),
        **{f"deconvolution_{n}d": _convolution(getattr(F, f"deconvolution_{n}d"), n) for n in (1, 2, 3)},
        "deconvolution_nd": _convolution(F.deconvolution_nd, 2),
        "depthwise_convolution_2d": (
            lambda x=normal[2, 3, 4, 5], w=normal[2, 3, 2, 2], b=normal[6]: F.depthwise_convolution_2d(x, w, b, 2, 1),
        ),
        "dilated_convolution_2d": (
            lambda x=normal[2, 3, 5, 5], w=normal[2, 3, 2, 2], b=normal[2]: F.dilated_convolution_2d(x, w, b, 1, 1, 2),
        ),
        "deformable_convolution_2d_sampler": (
            lambda x=normal[1, 2, 4, 5], offset=small[1, 8, 3, 4], w=normal[2, 2, 2, 2], b=normal[2]: (
                F.deformable_convolution_2d_sampler(x, offset, w, b)
            ),
        ),
        "local_convolution_2d": (
            lambda x=normal[2, 2, 3, 4], w=normal[3, 2, 3, 2, 2, 2], b=normal[3, 2, 3]: F.local_convolution_2d(
                x, w, b
            ),
        ),
        "shift": (lambda x=normal[1, 10, 3, 3]: F.shift(x, dilate=1),),
        # Losses.
        "mean_absolute_error": _loss(F.mean_absolute_error),
        "mean_squared_error": _loss(F.mean_squared_error),
        "bernoulli_nll": _with_reduction(lambda x, y, **options: F.bernoulli_nll(F.sigmoid(x), y, **options)),
        "gaussian_kl_divergence": _with_reduction(F.gaussian_kl_divergence),
        "gaussian_nll": (
            lambda x=normal[4, 3], mean=normal[4, 3], ln_var=normal[4, 3]: F.gaussian_nll(
                x, mean, ln_var, reduce="no"
            ),
            lambda x=normal[40, 3], mean=normal[40, 3], ln_var=normal[40, 3]: F.gaussian_nll(x, mean, ln_var),
            lambda x=large[4, 3], mean=large[4, 3], ln_var=normal[4, 3]: F.gaussian_nll(
                x, mean, ln_var, reduce="mean"
            ),
        ),
        "cross_covariance": _with_reduction(
            lambda x, y, reduce="half_squared_sum": F.cross_covariance(x, y, reduce=reduce)
        ),
        "decov": (
            lambda x=normal[4, 3]: (F.decov(x), F.decov(x, reduce="no")),
            lambda x=large[4, 3]: F.decov(x),
            lambda x=normal[300, 3]: F.decov(x),
        ),
        "black_out": (
            lambda x=normal[3, 2], t=labels[3], w=normal[5, 2]: F.black_out(x, t, w, numpy.array([[3, 4]] * 3, "i")),
            lambda x=normal[3, 2], t=labels[3], w=normal[5, 2]: F.black_out(
                x, t, w, numpy.array([[3, 4]] * 3, "i"), reduce="no"
            ),
        ),
        "negative_sampling": tuple(
            lambda x=normal[3, 2], t=signed_labels[3], w=normal[5, 2], reduce=reduce: F.negative_sampling(
                x, t, w, WalkerAlias([1, 2, 3, 4, 5]).sample, 4, reduce=reduce, return_samples=True
            )
            for reduce in ("sum", "no")
        ),
        "connectionist_temporal_classification": (
            lambda xs=(normal[2, 3],) * 4: _ctc(xs, [[1, 2], [2, 2]], [4, 3], [2, 1], "mean"),
            lambda xs=(normal[2, 3],) * 4: _ctc(xs, [[1, 2], [2, 2]], [4, 3], [2, 1], "no"),
            lambda xs=(normal[2, 3],) * 4: _ctc(xs, [[1, 2], [2, 1]]),
        ),
        "contrastive": (
            lambda x=normal[4, 3], y=normal[4, 3], t=bits[4], h=h: F.contrastive(x, y, t, h(3.5), reduce="no"),
            lambda x=large[4, 3], y=large[4, 3], t=bits[4], h=h: F.contrastive(x, y, t, h(3)),
            lambda x=normal[400, 3], y=normal[400, 3], t=bits[400], h=h: F.contrastive(x, y, t, h(3.1)),
            lambda x=low[MANY, 2], y=low[MANY, 2], t=bits[MANY]: F.contrastive(x, y, t, 0.5) * 1024,
        ),
        "triplet": (
            lambda a=normal[4, 3], p=normal[4, 3], n=normal[4, 3], h=h: F.triplet(a, p, n, h(0.1), reduce="no"),
            lambda a=large[4, 3], p=large[4, 3], n=large[4, 3], h=h: F.triplet(a, p, n, h(2)),
            *_of_many(lambda x, y: F.triplet(x, y, -y)),
        ),
        "crf1d": (
            lambda cost=normal[3, 3], xs=(normal[2, 3], normal[2, 3], normal[1, 3]): F.crf1d(
                cost, xs, [numpy.array(t, "i") for t in ([0, 1], [2, 1], [0])]
            ),
            lambda cost=normal[3, 3], xs=(normal[2, 3], normal[2, 3], normal[1, 3]): F.crf1d(
                cost, xs, [numpy.array(t, "i") for t in ([0, 1], [2, 1], [0])], reduce="no"
            ),
        ),
        "argmax_crf1d": (
            lambda cost=normal[3, 3], xs=(normal[2, 3], normal[2, 3], normal[1, 3]): F.argmax_crf1d(cost, xs),
        ),
        "discriminative_margin_based_clustering_loss": (
            lambda x=normal[3, 3, 2, 4], t=labels[3, 2, 4], h=h: F.discriminative_margin_based_clustering_loss(
                x, t, h(0.5), h(1.5), 3, 2, h(0.75), h(1.25), h(0.1)
            ),
            lambda x=normal[3, 3, 2, 4], t=labels[3, 2, 4]: F.discriminative_margin_based_clustering_loss(
                x, t, 0.5, 1.5, 3
            ),
        ),
        "hinge": (
            lambda x=normal[4, 3], t=labels[4]: (F.hinge(x, t), F.hinge(x, t, norm="L2", reduce="no")),
            lambda x=large[4, 3], t=labels[4]: (F.hinge(x, t), F.hinge(x, t, norm="L2")),
            *_of_many_labels(lambda x, t: F.hinge(x + numpy.array([0.75, -0.75]).astype(x.dtype), t * 0)),
        ),
        "huber_loss": (
            lambda x=normal[4, 3], t=normal[4, 3], h=h: (
                F.huber_loss(x, t, h(0.75)),
                F.huber_loss(x, t, h(0.1), reduce="no"),
            ),
            lambda x=large[4, 3], t=large[4, 3], h=h: F.huber_loss(x, t, h(2)),
        ),
        "sigmoid_cross_entropy": (
            lambda x=normal[4, 3], t=signed_labels[4, 3]: F.sigmoid_cross_entropy(x, abs(t) - 1),
            lambda x=large[4, 3], t=bits[4, 3]: F.sigmoid_cross_entropy(x, t, normalize=False),
            lambda x=normal[4, 3], t=bits[4, 3]: F.sigmoid_cross_entropy(x, t, reduce="no"),
            lambda x=normal[400, 30], t=bits[400, 30]: F.sigmoid_cross_entropy(x, t),
            lambda x=low[MANY], t=bits[MANY]: F.sigmoid_cross_entropy(x, t) * 1024,
        ),
        "softmax_cross_entropy": (
            lambda x=normal[4, 3], t=signed_labels[4]: F.softmax_cross_entropy(x, t),
            lambda x=large[4, 3], t=labels[4]: F.softmax_cross_entropy(x, t, normalize=False, reduce="no"),
            lambda x=normal[4, 3], t=labels[4]: F.softmax_cross_entropy(x, t, enable_double_backprop=True),
            lambda x=normal[4, 3, 2], t=labels[4, 2], w=positive.raw[3]: F.softmax_cross_entropy(x, t, class_weight=w),
            lambda x=normal[4, 3], t=fractions.raw[4, 3]: F.softmax_cross_entropy(x, t),
            lambda x=normal[4, 3], t=fractions.raw[4, 3]: F.softmax_cross_entropy(
                x, t, reduce="no", soft_target_loss="kl-divergence"
            ),
            lambda x=normal[4000, 3], t=signed_labels[4000]: F.softmax_cross_entropy(x, t),
            *_of_many_labels(F.softmax_cross_entropy),
            *_of_many_labels(lambda x, t: F.softmax_cross_entropy(x, t, enable_double_backprop=True)),
            lambda x=low[1, 2, MANY], t=bits[1, MANY]: F.softmax_cross_entropy(x, t) * 1024,
            lambda x=normal[4, 3], t=signed_labels[4]: F.softmax_cross_entropy(x, t, cache_score=False),
            lambda x=normal[4, 3], t=labels[4], w=positive.raw[3]: F.softmax_cross_entropy(
                x, t, class_weight=w, cache_score=False
            ),
            lambda x=normal[4, 3], t=labels[4], w=positive.raw[3]: F.softmax_cross_entropy(
                x, t, class_weight=w, normalize=False, enable_double_backprop=True
            ),
        ),
        # Evaluations.
        "accuracy": (
            lambda y=normal[4, 3], t=labels[4]: F.accuracy(y, t),
            lambda y=normal[4, 3, 2], t=signed_labels[4, 2]: F.accuracy(y, t, ignore_label=-1),
            lambda y=normal[5000, 3], t=labels[5000]: (F.accuracy(y, t), F.accuracy(y, t, ignore_label=0)),
            lambda y=normal[4, 3], t=signed_labels[4]: F.accuracy(y, -abs(t) * 0 - 1, ignore_label=-1),
        ),
        "binary_accuracy": (
            lambda y=normal[4, 3], t=bits[4, 3]: F.binary_accuracy(y, t),
            lambda y=normal[5000], t=signed_labels[5000]: F.binary_accuracy(y, abs(t) - 1),
        ),
        "classification_summary": (
            *_summaries(F.classification_summary),
            lambda y=normal[8, 3], t=labels[8], h=h: F.classification_summary(y, t, beta=h(0.75)),
        ),
        **{name: _summaries(getattr(F, name)) for name in ("precision", "recall", "f1_score")},
        "r2_score": (
            lambda y=normal[4, 3], t=normal[4, 3]: F.r2_score(y, t),
            lambda y=normal[400, 3], t=normal[400, 3]: F.r2_score(y, t, multioutput="raw_values"),
            lambda y=large[40, 3], t=large[40, 3]: F.r2_score(y, t),
        ),
        # Noise.
        "dropout": (
            lambda x=normal[4, 3], h=h: F.dropout(x, h(0.25), return_mask=True),
            lambda x=normal[4, 3], h=h: F.dropout(x, h(0.1)),
            lambda x=normal[4, 3], mask=bits[4, 3]: F.dropout(x, mask=mask.astype(x.dtype)),
            lambda x=normal[()]: F.dropout(x),
        ),
        "gaussian": (
            lambda mean=normal[2, 3], ln_var=normal[2, 3]: F.gaussian(mean, ln_var, return_eps=True),
            lambda mean=normal[()], ln_var=normal[()]: F.gaussian(mean, ln_var),
        ),
        "gumbel_softmax": (
            lambda x=normal[2, 3], h=h: F.gumbel_softmax(x, h(0.5)),
            lambda x=normal[2, 3], h=h: F.gumbel_softmax(x, h(0.1), axis=0),
        ),
        "simplified_dropconnect": (
            lambda x=normal[2, 3], w=normal[4, 3], b=normal[4], h=h: F.simplified_dropconnect(x, w, b, h(0.25)),
            lambda x=normal[2, 3], w=normal[4, 3]: F.simplified_dropconnect(x, w, use_batchwise_mask=False),
            lambda x=normal[2, 3], w=normal[4, 3], mask=bits[2, 4, 3], h=h: F.simplified_dropconnect(
                x, w, None, h(0.1), mask=mask.astype(bool)
            ),
            lambda x=normal[2, 3], w=normal[4, 3], h=h: F.simplified_dropconnect(x, w, None, h(0.1), train=False),
        ),
        "zoneout": (
            lambda x=normal[2, 3], y=normal[2, 3], h=h: F.zoneout(x, y, h(0.25)),
            lambda x=normal[2, 3], y=normal[2, 3], h=h: _tested(F.zoneout, x, y, h(0.1)),
        ),
        # Normalizations.
        "batch_normalization": (
            lambda x=normal[4, 3], gamma=normal[3], beta=normal[3], h=h: F.batch_normalization(
                x, gamma, beta, eps=h(1e-3)
            ),
            lambda x=normal[4, 3, 2], gamma=normal[3], beta=normal[3], m=normal.raw[3], v=positive.raw[3], h=h: (
                F.batch_normalization(x, gamma, beta, running_mean=m, running_var=v, decay=h(0.75)),
                m,
                v,
            ),
            lambda x=normal[4, 3], gamma=normal.single[3], beta=normal.single[3], h=h: F.batch_normalization(
                x, gamma, beta, eps=h(1e-4)
            ),
            lambda x=large[4, 3, 2], gamma=normal[3, 2], beta=normal[3, 2]: F.batch_normalization(
                x, gamma, beta, axis=0
            ),
            lambda x=tiny[4, 3], gamma=normal[3], beta=normal[3]: F.batch_normalization(x, gamma, beta),
            lambda x=low[MANY, 2], gamma=normal[2], beta=normal[2]: F.batch_normalization(x, gamma, beta),
        ),
        "fixed_batch_normalization": (
            lambda x=normal[4, 3], gamma=normal[3], beta=normal[3], m=normal[3], v=positive[3], h=h: (
                F.fixed_batch_normalization(x, gamma, beta, m, v, eps=h(1e-3))
            ),
            lambda x=normal[4, 3], p=normal.single[3], v=positive.single[3], h=h: F.fixed_batch_normalization(
                x, p, p, p, v, eps=h(1e-3)
            ),
        ),
        "batch_renormalization": (
            lambda x=normal[4, 3], gamma=normal[3], beta=normal[3], m=normal.raw[3], v=positive.raw[3], h=h: (
                F.batch_renormalization(
                    x, gamma, beta, h(1.5), h(0.5), h(1e-3), m, v, decay=h(0.75), update_statistics=True
                ),
                m,
                v,
            ),
            lambda x=normal[4, 3], p=normal.single[3], m=normal.single.raw[3]: (
                F.batch_renormalization(x, p, p, 1.5, 0.5, running_mean=m, running_var=abs(m), update_statistics=True),
                m,
            ),
        ),
        "fixed_batch_renormalization": (
            lambda x=normal[4, 3], gamma=normal[3], beta=normal[3], m=normal[3], v=positive[3], h=h: (
                F.fixed_batch_renormalization(x, gamma, beta, m, v, eps=h(1e-3))
            ),
        ),
        "decorrelated_batch_normalization": (
            lambda x=normal[6, 4], h=h: F.decorrelated_batch_normalization(x, groups=2, eps=h(1e-2)),
            lambda x=normal[6, 4], m=normal.raw[2, 2], p=normal.raw[2, 2, 2], h=h: (
                F.decorrelated_batch_normalization(x, groups=2, running_mean=m, running_projection=p, decay=h(0.75)),
                m,
                p,
            ),
        ),
        "fixed_decorrelated_batch_normalization": (
            lambda x=normal[6, 4], m=normal.raw[2, 2], p=normal.raw[2, 2, 2]: F.fixed_decorrelated_batch_normalization(
                x, m, p, 2
            ),
        ),
        "group_normalization": (
            lambda x=normal[2, 4, 3], gamma=normal[4], beta=normal[4], h=h: F.group_normalization(
                x, 2, gamma, beta, eps=h(1e-3)
            ),
        ),
        "layer_normalization": (
            lambda x=normal[4, 3], gamma=normal[3], beta=normal[3], h=h: F.layer_normalization(
                x, gamma, beta, h(1e-3)
            ),
            lambda x=large[4, 3], gamma=normal[3], beta=normal[3]: F.layer_normalization(x, gamma, beta),
            lambda x=low[2, MANY], gamma=normal[MANY], beta=normal[MANY]: F.layer_normalization(x, gamma, beta),
        ),
        "normalize": (
            lambda x=normal[4, 3], h=h: F.normalize(x, h(1e-3)),
            lambda x=large[4, 3, 2]: F.normalize(x, axis=(1, 2)),
            lambda x=tiny[4, 3]: F.normalize(x),
            lambda x=large[2, 300]: F.normalize(x),
            lambda x=low[2, MANY]: F.normalize(x),
        ),
        "local_response_normalization": (
            lambda x=normal[2, 6, 2], h=h: F.local_response_normalization(x, 3, h(1.5), h(0.1), h(0.75)),
            lambda x=large[2, 6, 2]: F.local_response_normalization(x),
        ),
        # Pooling.
        "average_pooling_1d": (
            *_pooling(F.average_pooling_1d, 1),
            lambda x=low[1, 2, MANY]: F.average_pooling_1d(x * 1024, MANY),
        ),
        "average_pooling_2d": (
            *_pooling(F.average_pooling_2d, 2),
            lambda x=low[1, 2, 250, 280]: F.average_pooling_2d(x * 1024, (250, 280)),
        ),
        "average_pooling_3d": _pooling(F.average_pooling_3d, 3),
        "average_pooling_nd": (
            *_pooling(F.average_pooling_nd, 2),
            *_pooling(F.average_pooling_nd, 1, pad_value=None),
            *_pooling(F.average_pooling_nd, 2, pad_value=None),
        ),
        **{f"max_pooling_{n}d": _pooling(getattr(F, f"max_pooling_{n}d"), n, return_indices=True) for n in (1, 2, 3)},
        "max_pooling_nd": _pooling(F.max_pooling_nd, 2, cover_all=False),
        **{f"unpooling_{n}d": _pooling(getattr(F, f"unpooling_{n}d"), n) for n in (1, 3)},
        "unpooling_2d": (
            *_pooling(F.unpooling_2d, 2),
            lambda x=normal[1, 2, 2, 3]: F.unpooling_2d(x, 2, cover_all=False),
        ),
        "unpooling_nd": _pooling(F.unpooling_nd, 2, cover_all=False),
        "upsampling_2d": (
            lambda x=normal[1, 2, 4, 5]: F.upsampling_2d(
                *F.max_pooling_2d(x, 2, return_indices=True), 2, outsize=(4, 5)
            ),
            lambda x=normal[1, 2, 4, 6]: F.upsampling_2d(
                *F.max_pooling_2d(x, 2, return_indices=True), 2, cover_all=False
            ),
        ),
        "spatial_pyramid_pooling_2d": (lambda x=normal[1, 2, 4, 5]: F.spatial_pyramid_pooling_2d(x, 2, "max"),),
        "roi_average_align_2d": _regions(F.roi_average_align_2d, (2, 3)),
        "roi_max_align_2d": _regions(F.roi_max_align_2d, (2, 3)),
        "roi_average_pooling_2d": _regions(F.roi_average_pooling_2d, (2, 3)),
        "roi_max_pooling_2d": _regions(F.roi_max_pooling_2d, (2, 3)),
        "roi_pooling_2d": (
            lambda x=normal[1, 2, 6, 8], h=h: F.roi_pooling_2d(
                x, numpy.array([[0, 0, 0, 6, 3], [0, 1, 2, 4, 5]]).astype(x.dtype), 2, 3, h(0.5)
            ),
        ),
        # Recurrent.
        "lstm": (
            lambda c=normal[2, 3], x=normal[2, 12]: F.lstm(c, x),
            lambda c=normal[3, 3], x=normal[2, 12]: F.lstm(c, x),
            lambda c=normal[2, 3], x=normal[2, 12]: F.lstm(c, x)[1],
            lambda c=normal[3, 3], x=normal[2, 12]: F.lstm(c, x)[0],
        ),
        "slstm": (
            lambda c=normal[2, 2], d=normal[2, 2], x=normal[2, 8], y=normal[2, 8]: F.slstm(c, d, x, y),
            lambda c=normal[2, 2], d=normal[2, 2], x=normal[2, 8], y=normal[2, 8]: F.slstm(c, d, x, y)[0],
            lambda c=normal[2, 2], d=normal[2, 2], x=normal[2, 8], y=normal[2, 8]: F.slstm(c, d, x, y)[1],
        ),
        "tree_lstm": (
            lambda c=normal[2, 2], d=normal[2, 2], x=normal[2, 10]: F.tree_lstm(c, d, x),
            lambda c=normal[2, 2], x=normal[2, 8]: F.tree_lstm(c, x),
            lambda c=normal[2, 2], x=normal[2, 8]: F.tree_lstm(c, x)[1],
        ),
        "n_step_rnn": _rnn(F.n_step_rnn, 2, activation="relu"),
        "n_step_birnn": _rnn(F.n_step_birnn, 2, directions=2),
        "n_step_gru": _rnn(F.n_step_gru, 6),
        "n_step_bigru": _rnn(F.n_step_bigru, 6, directions=2),
        "n_step_lstm": _rnn(F.n_step_lstm, 8, cells=True),
        "n_step_bilstm": _rnn(F.n_step_bilstm, 8, cells=True, directions=2),
        "forget": (lambda x=normal[2, 3], y=normal[2, 3]: F.forget(lambda a, b: F.exp(a) * b * 0.75, x, y),),
    }
)

PROBES = {"chainer.functions": FUNCTIONS}

NEEDS = {
    f"chainer.functions.{name}": "scipy"
    for name in words("digamma erf erfc erfcinv erfcx erfinv lgamma log_ndtr ndtr ndtri polygamma sparse_matmul zeta")
}

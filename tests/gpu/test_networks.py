"""Networks of Chainer's functions train on a GPU, with whichever CuPy is installed and without cuDNN."""

from __future__ import annotations

import copy

import chainer
import numpy
import pytest
from chainer import functions as F
from chainer import links as L
from gpu.arrays import GPU, on_a_gpu_only

from rmsprop_graves import RMSpropGraves


class Network(chainer.Chain):
    """Links, and a function of the network and its input that returns the loss."""

    def __init__(self, loss, **links):
        """Take the function and the links by name."""
        super().__init__()
        with self.init_scope():
            for name, link in links.items():
                setattr(self, name, link)
        self.loss = loss

    def forward(self, x):
        """Return the loss."""
        return self.loss(self, x)


def classified(net, x):
    return F.softmax_cross_entropy(net.a(x), net.xp.zeros(len(x), "i"))


def convolved(net, x):
    x = F.max_pooling_2d(F.relu(net.b(net.a(x))), 2)
    return F.sum(net.c(F.average_pooling_2d(x, 2)) ** 2)


def dropped(net, x):
    return F.sum(net.b(F.dropout(net.a(x))) ** 2)


def deconvolved(net, x):
    return F.mean(F.sigmoid(F.tanh(net.b(net.a(net.c(x))))))


def embedded(net, x):
    net.b.reset_state()
    return F.sum(net.b(net.a(x)[:, 0]) ** 2)


def gated(net, x):
    net.a.reset_state()
    return F.sum(F.concat((net.b(net.a(x))[:, :3], x[:, :2])) ** 2)


def unrolled(net, x):
    return F.sum(net.a(None, None, [x[0], x[1]])[0] ** 2) + F.sum(net.b(None, [x[0]])[0] ** 2)


def scattered(net, x):
    return F.sum(F.scatter_add(net.a(x)[numpy.array([0, 0, 1])], [0, 0], net.a(x)[:2]) ** 2)


def transformed(net, x):
    x = net.a(x)
    same = chainer.Variable(net.xp.eye(3, dtype="f"))
    grid = F.spatial_transformer_grid(F.broadcast_to(same[:2], (2, 2, 3)), (6, 6))
    return (
        F.sum(F.spatial_transformer_sampler(x, grid))
        + F.sum(F.resize_images(x, (5, 5)))
        + F.sum(F.normalize(F.reshape(x, (2, -1))))
        + F.sum(F.inv(same))
        + F.einsum("ij,ij->", x[0, 0], x[0, 1])
    )


# Under the names of their parts: the shape of the input, the loss and the links.
NETWORKS = {
    "Linear, softmax_cross_entropy": ((6, 8), classified, lambda: {"a": L.Linear(8, 4)}),
    "Convolution2D, BatchNormalization, pooling": (
        (4, 3, 18, 18),
        convolved,
        lambda: {"a": L.Convolution2D(3, 8, 3), "b": L.BatchNormalization(8), "c": L.Linear(None, 4)},
    ),
    "dropout": ((6, 8), dropped, lambda: {"a": L.Linear(8, 16), "b": L.Linear(16, 4)}),
    # Because of the first convolution, the deconvolution also computes the gradient of its input.
    "Deconvolution2D, GroupNormalization": (
        (2, 3, 9, 9),
        deconvolved,
        lambda: {"c": L.Convolution2D(3, 3, 1), "a": L.Deconvolution2D(3, 8, 3), "b": L.GroupNormalization(2, 8)},
    ),
    "EmbedID, LSTM": ((4, 3), embedded, lambda: {"a": L.EmbedID(5, 6), "b": L.LSTM(6, 7)}),
    "GRU, LayerNormalization, concat": (
        (4, 8),
        gated,
        lambda: {"a": L.StatefulGRU(8, 5), "b": L.LayerNormalization(5)},
    ),
    "NStepLSTM, NStepGRU": (
        (2, 3, 8),
        unrolled,
        lambda: {"a": L.NStepLSTM(2, 8, 5, 0.0), "b": L.NStepGRU(1, 8, 5, 0.0)},
    ),
    "get_item by an array, scatter_add": ((6, 8), scattered, lambda: {"a": L.Linear(8, 4)}),
    "spatial_transformer, resize_images, normalize, inv, einsum": (
        (2, 3, 9, 9),
        transformed,
        lambda: {"a": L.Convolution2D(3, 4, 3)},
    ),
}


def losses_on(device, model, x):
    """Return the losses of five updates on a device, and assert that the parameters and states are on it."""
    device = chainer.get_device(device)
    device.use()
    model.to_device(device)
    optimizer = RMSpropGraves(lr=1e-4).setup(model)
    losses = []

    def loss():
        losses.append(model(device.send(x)))
        return losses[-1]

    for _ in range(5):
        optimizer.update(loss)
    for param in model.params():
        assert all(device.is_array_supported(array) for array in (param.array, *param.update_rule.state.values()))
    return [float(chainer.get_device("@numpy").send(loss.array)) for loss in losses]


@on_a_gpu_only
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_to_about_the_same_losses_as_on_the_cpu(name):
    """Chainer's functions round differently on a GPU. There dropout draws other numbers."""
    shape, loss, make = NETWORKS[name]
    numpy.random.seed(0)
    x = numpy.random.standard_normal(shape).astype("f")
    if loss is embedded:
        x = numpy.arange(x.size).reshape(shape) % 5
    model = Network(loss, **make())
    model(x)  # makes parameters whose shape depends on the input
    expected, losses = (losses_on(device, copy.deepcopy(model), x) for device in ("@numpy", GPU))
    assert numpy.isfinite(losses).all()
    assert losses[-1] < losses[0] or loss is dropped
    if loss is not dropped:
        numpy.testing.assert_allclose(losses, expected, rtol=1e-2, atol=1e-4)

"""Calls of the Caffe exporter and importer: they write a network as Caffe's files, and read it back."""

from __future__ import annotations

import os
import tempfile

import chainer
import chainer.functions as F
import chainer.links as L

from .inputs import normal


class _Network(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.convolution = L.Convolution2D(2, 3, 2)
            self.normalization = L.BatchNormalization(3)
            self.linear = L.Linear(12, 4)

    def forward(self, x):
        y = F.relu(self.normalization(self.convolution(x)))
        y = F.local_response_normalization(F.max_pooling_2d(y, 2), k=1)
        y = F.leaky_relu(F.dropout(y, 0.25), 0.1)
        return F.softmax(F.sigmoid(self.linear(y)))


def _exported(x, folder):
    from chainer.exporters import caffe

    network = _Network()
    with chainer.using_config("train", False):
        caffe.export(network, [x], folder, export_params=True, graph_name="graph")
        return network(x)


def _written(x):
    with tempfile.TemporaryDirectory() as folder:
        y = _exported(x, folder)
        with open(os.path.join(folder, "chainer_model.prototxt")) as file:
            return y, sorted(os.listdir(folder)), file.read()


def _read(x):
    from chainer.links.caffe import CaffeFunction

    with tempfile.TemporaryDirectory() as folder:
        _exported(x, folder)
        function = CaffeFunction(os.path.join(folder, "chainer_model.caffemodel"))
    names = [name for name, _, _ in function.layers]
    with chainer.using_config("train", False):
        return function({"data": x}, [function.layers[-1][2][0]]), names


INPUT = normal.single[1, 2, 5, 5]

PROBES = {
    "chainer.exporters.caffe": {"export": lambda x=INPUT: _written(x)},
    "chainer.links.caffe": {"CaffeFunction": lambda x=INPUT: _read(x)},
}

"""A few launches for ncu, on ten million floats: the kernels of one parameter and of a table, and Chainer's."""

import rmsprop_graves  # isort: split

import chainer
import cupy
import numpy
from chainer.optimizers.rmsprop_graves import RMSpropGraves as Chainers

values = numpy.random.default_rng(0).standard_normal(10**7, "f4")
for make in (rmsprop_graves.RMSpropGraves, Chainers):
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(cupy.asarray(values))
    link.p.grad = cupy.asarray(values[::-1].copy())
    optimizer = make().setup(link)
    for _ in range(4):
        optimizer.update()
    for param in link.params():
        param.update()
cupy.cuda.Device().synchronize()

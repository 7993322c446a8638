"""The repairs of Chainer 7.8.1 and ChainerRL 0.8: code that fails or computes other numbers on newer packages.

This module is data, which `loader` applies. Replacements may call functions of `_numpy1`, `_workers` and `_files`:
`loader` puts these modules of this package into each repaired module.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple


class Repair(NamedTuple):
    """Replacements in the source of one or more modules, for one reason."""

    modules: str  # their names, separated by spaces
    what: str  # the repaired feature, by the name that users know
    since: str  # the first version that needs the repair
    seen: str  # the symptom that a user sees without the repair
    changes: dict[str, str]  # maps Chainer's text to its replacement
    only_with: str = ""  # the repair applies only where this module exists

    def apply(self, source: str) -> str:
        """Returns the source with every occurrence replaced, and with unchanged line numbers."""
        for old, new in self.changes.items():
            source = source.replace(old, new + "\n" * (old.count("\n") - new.count("\n")))
        return source


_PKG_RESOURCES = {"import pkg_resources": "from rmsprop_graves._chainer7 import pkg_resources"}
_ONNX_MAPPING = {"from onnx.mapping import": "from rmsprop_graves._chainer7.onnx_mapping import"}


def _as_numbers(*names: str) -> dict[str, str]:
    """Stores scalar attributes as Python numbers, because a NumPy scalar may widen an array on NumPy 2."""
    return {
        f"self.{name} = {name.lstrip('_')}\n": f"self.{name} = _numpy1.number({name.lstrip('_')})\n" for name in names
    }


def _floats(*arrays: str) -> dict[str, str]:
    """Converts one-element arrays with any number of dimensions; NumPy 2.4 accepts zero-dimensional ones only."""
    return {f"float({array})": f"float({array}.item())" for array in arrays}


REPAIRS = (
    Repair(
        "chainer._environment_check",
        "import chainer",
        "Python 3.12; setuptools 82, or 74 with NumPy 1",
        "No module named 'numpy.distutils' or 'pkg_resources'",
        {
            **_PKG_RESOURCES,
            "import numpy.distutils.system_info": "import numpy",
            # On macOS this looks for the old Accelerate library, which NumPy stopped using in 1.20.
            "numpy.distutils.system_info.get_info('blas_opt')": "{}",
        },
    ),
    Repair(
        "chainer.testing.helper chainer.testing.doctest_helper",
        "chainer.testing",
        "setuptools 82",
        "No module named 'pkg_resources'",
        _PKG_RESOURCES,
    ),
    Repair(
        "chainer.functions.array.as_strided",
        "import chainer",
        "NumPy 2.0",
        "np.sctypes was removed",
        {
            "np.sctypes['int']": "(np.int8, np.int16, np.int32, np.int64)",
            "np.sctypes['float']": "(np.float16, np.float32, np.float64, np.longdouble)",
        },
    ),
    Repair(
        "chainer.functions.array.resize_images",
        "F.resize_images",
        "NumPy 1.24",
        "module 'numpy' has no attribute 'float'",
        {"numpy.float)": "float)"},
    ),
    Repair(
        "chainer.distributions.categorical",
        "Categorical.log_prob of a batch",
        "NumPy 2.0",
        "can only concatenate tuple",
        {"self.log_p[mg + [": "self.log_p[list(mg) + ["},
    ),
    Repair(
        "chainer.distributions.bernoulli",
        "Bernoulli.log_prob with a float64 scalar as p and an array of lower precision",
        "NumPy 2.0",
        "a float64 result",
        {
            "logit * (x - 1) - xp.log(xp.exp(-logit) + 1)": (
                "_numpy1.beside(logit, x) * (x - 1) - _numpy1.beside(xp.log(xp.exp(-logit) + 1), x)"
            )
        },
    ),
    Repair(
        "chainermn.iterators.multi_node_iterator",
        "ChainerMN's multi-node iterator",
        "NumPy 2.4",
        "ranks that hang",
        {"int(_size)": "int(_size.item())"},
    ),
    Repair(
        "chainer.reporter",
        "means and deviations of LogReport, Evaluator, PrintReport and every other Summary",
        "NumPy 2.0",
        "wrong numbers: a mean of 0.51 for 4,000 float16 ones, nan for the deviation of float32",
        {
            "self._x += weight * value\n": "self._x = _numpy1.add(self._x, _numpy1.multiply(weight, value))",
            "self._x2 += weight * value * value": (
                "self._x2 = _numpy1.add(self._x2, _numpy1.multiply(weight, value) * value)"
            ),
            "self._n += weight": "self._n = _numpy1.add(self._n, weight)",
        },
    ),
    Repair(
        "chainer.optimizer_hooks.gradient_clipping",
        "GradientClipping",
        "NumPy 2.0",
        "zero gradients if the sum of squares overflows in float16; rounding differences in float32",
        {"sum(dots)": "_numpy1.sum_of(dots)", "grad *= rate": "grad *= _numpy1.beside(rate, grad)"},
    ),
    Repair(
        "chainer.optimizer_hooks.gradient_lars",
        "GradientLARS",
        "NumPy 2.0",
        "infinite parameters if the norm of a gradient rounds to zero in float16; rounding differences in float32",
        {
            "self.eps + g_norm + self.weight_decay * p_norm": (
                "_numpy1.add(self.eps, g_norm) + _numpy1.multiply(self.weight_decay, p_norm)"
            ),
            "g += self.weight_decay * p": "g += _numpy1.multiply(self.weight_decay, p)",
            "g *= rate\n": "g *= _numpy1.beside(rate, g)\n",
        },
    ),
    Repair(
        "chainer.optimizer_hooks.weight_decay",
        "WeightDecay with a NumPy scalar as rate, or of zero-dimensional parameters",
        "NumPy 2.0",
        "rounding differences",
        {
            "rate *= param._loss_scale": "rate = _numpy1.multiply(rate, param._loss_scale)",
            "g += rate * p\n": "g += _numpy1.multiply(rate, p)\n",
        },
    ),
    Repair(
        "chainer.optimizer_hooks.lasso",
        "Lasso with a NumPy scalar as rate, or of zero-dimensional parameters",
        "NumPy 2.0",
        "rounding differences",
        {"g += self.rate * sign\n": "g += _numpy1.multiply(self.rate, sign)\n"},
    ),
    Repair(
        "chainer.link_hooks.spectral_normalization",
        "SpectralNormalization",
        "NumPy 2.0",
        "InvalidType with a NumPy scalar as eps, rounding differences",
        {"v / (norm + eps)": "v / _numpy1.beside(_numpy1.add(norm, eps), v)"},
    ),
    Repair(
        "chainer.training.extensions.micro_average",
        "MicroAverage",
        "NumPy 2.0",
        "wrong averages of small integers, which wrap around, and of float16",
        {
            f"self._{part} += observation[self._{part}_key]": (
                f"self._{part} = _numpy1.add(self._{part}, observation[self._{part}_key])"
            )
            for part in ("numerator", "denominator")
        },
    ),
    Repair(
        "chainermn.extensions.observation_aggregator",
        "ObservationAggregator",
        "NumPy 2.0",
        "wrong means of float16: 0.51 for 4,000 ones",
        {"sum(xs) / len(xs)": "_numpy1.sum_of(xs) / len(xs)"},
    ),
    Repair(
        "chainer.optimizer",
        "every optimizer with NumPy scalars as hyperparameters, or of zero-dimensional parameters",
        "NumPy 2.0",
        "float64 states of float32 parameters, nan in float16, rounding differences",
        {"self.update_core_cpu(param)": "_numpy1.update_core_cpu(self, param)"},
    ),
    Repair(
        "chainer.optimizers.smorms3",
        "SMORMS3 of zero-dimensional parameters",
        "NumPy 2.0",
        "nan in float16, rounding differences in float32",
        {"1 / (mem + 1)\n": "1 / _numpy1.add(mem, 1)\n"},
    ),
    Repair(
        "chainer.optimizers.msvag",
        "MSVAG with a NumPy scalar as beta, or of zero-dimensional parameters",
        "NumPy 2.0",
        "float64 states of float32 parameters, rounding differences",
        {
            "self.beta_power = self.hyperparam.beta": "self.beta_power = float(self.hyperparam.beta)",
            "m / (1 - self.beta_power)": "m / _numpy1.beside(1 - self.beta_power, m)",
            "v / (1 - self.beta_power)": "v / _numpy1.beside(1 - self.beta_power, v)",
        },
    ),
    Repair(
        "chainer.optimizers.adam",
        "AdaBound and AMSBound with a NumPy scalar as alpha",
        "NumPy 2.0",
        "rounding differences",
        {"self.initial_alpha = self.hyperparam.alpha": "self.initial_alpha = float(self.hyperparam.alpha)"},
    ),
    *(
        Repair(
            f"chainer.training.extensions.{module}_shift",
            "schedules such as ExponentialShift with NumPy float32 numbers",
            "NumPy 2.0",
            "rates with float32 precision only",
            {
                **_as_numbers(*attributes),
                "getattr(optimizer, self._attr)\n": "_numpy1.number(getattr(optimizer, self._attr))\n",
            },
        )
        for module, attributes in {
            "exponential": ["_rate", "_init", "_target"],
            "inverse": ["_gamma", "_power", "_init", "_target"],
            "multistep": ["_gamma", "_init"],
            "polynomial": ["_rate", "_init", "_target"],
            "step": ["_gamma", "_init", "_target"],
            "warmup": ["_warmup_start", "_init"],
        }.items()
    ),
    Repair(
        "chainermn.links.batch_normalization",
        "copy.deepcopy of a MultiNodeBatchNormalization",
        "Python 3.14",
        "RecursionError",
        {
            "ret = copy.deepcopy(super(MultiNodeBatchNormalization, self))": (
                "ret = object.__new__(type(self)); ret.__dict__.update(copy.deepcopy(self.__dict__, memo))"
            )
        },
    ),
    Repair(
        "chainer.functions.math.sparse_matmul",
        "F.sparse_matmul of float16",
        "SciPy 1.15",
        "ValueError: dtype float16 is not supported",
        {
            "    _m, _k = A_shape\n    _n = B.shape[-1]\n    if B.ndim == 2:": (
                "    _m, _k = A_shape\n    A_data = A_data.astype(numpy.promote_types(A_data.dtype, 'f4'), copy=False)"
                "; _n = B.shape[-1]\n    if B.ndim == 2:"
            )
        },
    ),
    Repair(
        "chainer.functions.math.basic_math",
        "arithmetic of integer Variables with numbers outside their range",
        "NumPy 2.0",
        "OverflowError: Python integer out of bounds",
        {"x.dtype.type(value)": "_numpy1.cast(value, x.dtype)"},
    ),
    Repair(
        "chainer.functions.math.basic_math",
        "float64 Variables divided by a NumPy float32",
        "NumPy 2.0",
        "quotients with float32 precision only",
        {"1. / rhs": "1. / _numpy1.number(rhs)"},
    ),
    Repair(
        "chainer.functions.math.basic_math",
        "the gradient of float64 Variables to the power of a NumPy float32",
        "NumPy 2.0",
        "gradients with float32 precision only",
        {"self.value - 1)": "_numpy1.number(self.value) - 1)"},
    ),
    Repair(
        "chainer.utils.walker_alias",
        "F.negative_sampling and WalkerAlias",
        "NumPy 2.0",
        "different samples for the same seed",
        {
            "prob * len(probs)": "_numpy1.number(prob) * len(probs)",
            "1.0 - threshold[ir]": "1.0 - _numpy1.number(threshold[ir])",
        },
    ),
    Repair(
        "chainer.functions.activation.softplus",
        "F.softplus of float64 with a NumPy float32 as beta",
        "NumPy 2.0",
        "results with float32 precision only",
        {"float(1.0 / beta)": "1.0 / float(beta)"},
    ),
    Repair(
        "chainer.functions.noise.dropout",
        "F.dropout of float64 with a NumPy float32 as ratio",
        "NumPy 2.0",
        "results with float32 precision only",
        _as_numbers("dropout_ratio"),
    ),
    Repair(
        "chainer.functions.noise.simplified_dropconnect",
        "F.simplified_dropconnect of float64 with a NumPy float32 as ratio",
        "NumPy 2.0",
        "results with float32 precision only",
        _as_numbers("ratio"),
    ),
    Repair(
        "chainer.functions.activation.leaky_relu",
        "F.leaky_relu of float16 with a NumPy scalar as slope",
        "NumPy 2.0",
        "rounding differences",
        _as_numbers("slope"),
    ),
    Repair(
        "chainer.functions.loss.mean_squared_error",
        "F.mean_squared_error of more than 65,504 elements in float16",
        "NumPy 2.0",
        "a loss of 0",
        {"diff.dot(diff) / diff.size": "_numpy1.divide(diff.dot(diff), diff.size)"},
    ),
    Repair(
        "chainer.functions.loss.triplet",
        "F.triplet of more than 65,504 examples in float16",
        "NumPy 2.0",
        "a loss of 0",
        {"xp.sum(self.dist_hinge) / N": "_numpy1.divide(xp.sum(self.dist_hinge), N)"},
    ),
    Repair(
        "chainer.functions.loss.hinge",
        "F.hinge of more than 65,504 examples in float16",
        "NumPy 2.0",
        "a loss and a gradient of 0",
        {
            "loss.sum() / num": "_numpy1.divide(loss.sum(), num)",
            "gloss /= len(t)": "gloss /= _numpy1.beside(len(t), gloss)",
        },
    ),
    Repair(
        "chainer.functions.pooling.average_pooling_2d",
        "F.average_pooling_2d of a window of more than 65,504 pixels in float16",
        "NumPy 2.0",
        "a gradient of 0",
        {"gx /= self.kh * self.kw": "gx /= _numpy1.beside(self.kh * self.kw, gx)"},
    ),
    Repair(
        "chainer.functions.pooling.average_pooling_nd",
        "F.average_pooling_nd of a window of more than 65,504 elements in float16",
        "NumPy 2.0",
        "a gradient of 0",
        {
            "gx /= functools.reduce(operator.mul, ksize)": (
                "gx /= _numpy1.beside(functools.reduce(operator.mul, ksize), gx)"
            )
        },
    ),
    Repair(
        "chainer.functions.math.trigonometric",
        "F.arctan2 of a float16 array and a float64 scalar",
        "NumPy 2.0",
        "a float64 result, and a TypeError in its gradient",
        {
            "xp.arctan2(x1, x2)": "xp.arctan2(*_numpy1.beside_each_other(x1, x2))",
            "sqnorm = x1 ** 2 + x2 ** 2\n": "x1, x2 = _numpy1.beside_each_other(x1, x2); sqnorm = x1 ** 2 + x2 ** 2\n",
        },
    ),
    Repair(
        "chainer.functions.math.fix",
        "F.fix",
        "NumPy 2.5",
        "DeprecationWarning: numpy.fix is deprecated",
        {"xp.fix(x)": "xp.trunc(x)"},
    ),
    Repair(
        "chainer.functions.array.pad_sequence",
        "F.pad_sequence of unsigned integers, padded with -1",
        "NumPy 2.0",
        "OverflowError: Python integer -1 out of bounds",
        {"y[i, l:] = self.padding": "y[i, l:] = _numpy1.cast(self.padding, y.dtype)"},
    ),
    Repair(
        "chainer.dataset.convert",
        "concat_examples of unsigned integers, padded with -1",
        "NumPy 2.0",
        "OverflowError: Python integer -1 out of bounds",
        {
            "xp.full(shape, padding, dtype=": "xp.full(shape, _numpy1.cast(padding, arrays[0].dtype), dtype=",
            "numpy.maximum(shape, array.shape, shape)": "numpy.maximum(shape, array.shape, out=shape)",
        },
    ),
    Repair(
        "chainer.datasets._mnist_helper chainer.datasets.cifar chainer.datasets.svhn",
        "get_mnist, get_cifar10 and the like in float64 with a NumPy float32 as scale",
        "NumPy 2.0",
        "pixels with float32 precision only",
        {"scale / 255.": "_numpy1.number(scale) / 255."},
    ),
    Repair(
        "chainer.datasets.image_dataset",
        "LabeledImageDataset with a label of -1 and an unsigned label_dtype",
        "NumPy 2.0",
        "OverflowError: Python integer -1 out of bounds",
        {"numpy.array(int_label, dtype=self._label_dtype)": "numpy.array(int_label).astype(self._label_dtype)"},
    ),
    Repair(
        "chainermn.communicators._memory_utility",
        "gradients sent by ChainerMN in another dtype",
        "NumPy 2.0; CuPy 14",
        "ValueError: Unable to avoid copy while creating an array",
        {"xp.array(v, copy=False, dtype=transfer_dtype)": "xp.asarray(v, dtype=transfer_dtype)"},
    ),
    Repair(
        "chainer.variable",
        "Variable.debug_print",
        "NumPy 2.0",
        "'device: cpu' in place of 'device: CPU'",
        {"getattr(array, 'device', 'CPU')": "'CPU' if xp is numpy else getattr(array, 'device', 'CPU')"},
    ),
    Repair(
        "chainer.functions.connection.deconvolution_2d",
        "the gradient of a deconvolution with respect to its weight alone",
        "Chainer 7.0",
        "ValueError: not enough values to unpack",
        {"self._set_cover_all(x, W)\n": "self._set_cover_all(x.shape, W.shape)"},
    ),
    Repair(
        "chainer.links.activation.maxout",
        "L.Maxout with an initializer",
        "NumPy 2.5",
        "DeprecationWarning: Setting the shape on a NumPy array",
        {
            f"array.shape = {shape}\n{' ' * 16}{name}_orig(array)\n{' ' * 16}array.shape = {flat}\n": (
                f"{name}_orig(array.reshape({shape}))\n"
            )
            for name, shape, flat in (
                ("initialW", "(out_size, pool_size, in_size)", "(linear_out_size, in_size)"),
                ("initial_bias", "(out_size, pool_size)", "linear_out_size,"),
            )
        },
    ),
    Repair(
        "chainer.functions.array.get_item",
        "the gradient of an array index on a GPU",
        "CuPy 12",
        "DeprecationWarning: scatter_add is deprecated",
        {"gx.scatter_add(slices, inputs[0])": "xp.add.at(gx, slices, inputs[0])"},
    ),
    Repair(
        "chainer.functions.array.scatter_add chainer.functions.array.as_strided "
        "chainer.functions.array.spatial_transformer_sampler chainer.utils.sparse",
        "F.scatter_add, F.as_strided, F.spatial_transformer_sampler and CooMatrix on a GPU",
        "CuPy 12",
        "DeprecationWarning: scatter_add is deprecated",
        {"cuda.cupyx.scatter_add": "cuda.cupy.add.at"},
    ),
    Repair(
        "chainer.iterators.multiprocess_iterator",
        "MultiprocessIterator",
        "Python 3.14, whose default start method is forkserver",
        "training that hangs if workers cannot start, or if the dataset raises an exception",
        {
            "self._pool = multiprocessing.Pool(": "self._pool = _workers.Pool(",
            "                alive = self._task()": "                alive = _workers.run_task(self)",
            "self._not_empty_cond.wait(_response_time)": "_workers.wait_for_batch(self, _response_time)",
            "if self._comm.is_terminated:": "if _workers.is_terminated(self):",
        },
    ),
    Repair(
        "chainer.iterators.multiprocess_iterator",
        "MultiprocessIterator",
        "Python 3.10",
        "DeprecationWarning: setDaemon() is deprecated",
        {"thread.setDaemon(True)": "thread.daemon = True"},
    ),
    Repair(
        "chainer.serializers.npz chainer.serializers.hdf5",
        "loading an optimizer's file or a trainer's snapshot into a model",
        "Chainer 1",
        "KeyError or AttributeError that does not say what the file is",
        {"d.load(obj)": "_files.load(d, obj)"},
    ),
    Repair(
        "chainer.serializers.hdf5",
        "loading hdf5 snapshots of a trainer saved by Chainer 1 or 2",
        "Chainer 3.0, whose triggers have entries",
        "ValueError: Inexistent group is specified",
        # The triggers catch the KeyError that an npz file gives.
        {"raise ValueError('Inexistent group is specified')": "raise KeyError('Inexistent group is specified')"},
    ),
    Repair(
        "chainer.training.extensions.snapshot_writers",
        "ProcessWriter, ProcessQueueWriter, ThreadWriter and ThreadQueueWriter",
        "Python 3.14, whose default start method is forkserver",
        "snapshots that are not written, without an error, or training that never ends",
        {
            "self._worker.join()": "_workers.join(self._worker, self._filename)",
            "return threading.Thread(": "return _workers.Thread(",
            "self._queue.put([self._task, filename, outdir, target])": (
                "_workers.put(self._queue, [self._task, filename, outdir, target], self._consumer)"
            ),
            "self._queue.put(None)\n                self._queue.join()\n                self._consumer.join()\n": (
                "_workers.finish(self._queue, self._consumer)\n"
            ),
        },
    ),
    *(
        Repair(
            f"chainer.training.extensions.{module}",
            f"snapshots of arrays on a CPU by {writers}",
            "Chainer 6, which added writers",
            "files that mix numbers of several iterations, because training went on while they were written",
            changes,
        )
        for module, writers, changes in (
            (
                "snapshot_writers",
                "ThreadWriter, ThreadQueueWriter and ProcessQueueWriter",
                {
                    "filename, outdir, target,\n                                          **self._kwds)": (
                        "filename, outdir, _workers.copied_for_worker(self, target), **self._kwds)"
                    ),
                    "filename, outdir, target]": "filename, outdir, _workers.copied(target)]",
                },
            ),
            (
                "_snapshot",
                "a program's own writer that runs while training goes on",
                {
                    "self.writer(filename, outdir, serialized_target)": (
                        "self.writer(filename, outdir, _workers.copied_for(self.writer, serialized_target))"
                    )
                },
            ),
        )
    ),
    Repair(
        "chainer.backends.cuda",
        "import chainer with CuPy 14, which has no cuDNN",
        "CuPy 14",
        "UserWarning: cuDNN is not enabled, unless CHAINER_CUDNN=0 is set",
        {
            "int(os.environ.get('CHAINER_CUDNN', '1')) == 0": (
                "int(os.environ.get('CHAINER_CUDNN', '1')) == 0 or _cupy_major >= 14"
            )
        },
    ),
    Repair(
        "chainer.training.updaters.multiprocess_parallel_updater",
        "MultiprocessParallelUpdater",
        "CuPy 14",
        "CUDA compiler error: identifier float16 is undefined",
        {
            f"'_memcpy_{way}',": f"'_memcpy_{way}', preamble='#include <cupy/float16.cuh>',"
            for way in ("gather", "scatter")
        },
    ),
    Repair(
        "chainer.functions.normalization.layer_normalization chainer.functions.normalization.l2_normalization "
        "chainer.functions.normalization.group_normalization",
        "F.layer_normalization, F.normalize and F.group_normalization with a NumPy scalar as eps",
        "NumPy 2.0",
        "float64 results of float32 inputs, or InvalidType",
        _as_numbers("eps"),
    ),
    Repair(
        "chainer.functions.normalization.batch_normalization chainer.functions.normalization.batch_renormalization "
        "chainer.functions.normalization.decorrelated_batch_normalization",
        "batch normalization with NumPy scalars as eps or decay",
        "NumPy 2.0",
        "float64 results of float32 inputs, or InvalidType",
        _as_numbers("eps", "decay"),
    ),
    Repair(
        "chainer.functions.normalization.batch_renormalization",
        "F.batch_renormalization with NumPy scalars as rmax or dmax",
        "NumPy 2.0",
        "TypeError in its gradient",
        _as_numbers("rmax", "dmax"),
    ),
    Repair(
        "chainer.functions.normalization.local_response_normalization",
        "F.local_response_normalization with NumPy scalars as k, alpha or beta",
        "NumPy 2.0",
        "float64 results of float32 inputs, or InvalidType",
        _as_numbers("k", "alpha", "beta"),
    ),
    Repair(
        "chainer.links.caffe.protobuf3.caffe_pb2",
        "chainer.links.caffe and chainer.exporters",
        "protobuf 4",
        "TypeError: Descriptors cannot be created directly",
        # protobuf builds the classes from the serialized descriptor; the rest of the file becomes an unused string.
        {
            "from google.protobuf.internal import enum_type_wrapper": "from google.protobuf.internal import builder",
            "from google.protobuf import descriptor as _descriptor": "from google.protobuf import descriptor_pool",
            "from google.protobuf import message as _message\n": "",
            "from google.protobuf import reflection as _reflection\n": "",
            "from google.protobuf import symbol_database as _symbol_database\n": "",
            "_sym_db = _symbol_database.Default()\n": "",
            "_descriptor.FileDescriptor(\n  name='caffe.proto',\n  package='caffe',\n  syntax='proto2',\n"
            "  serialized_pb=": "descriptor_pool.Default().AddSerializedFile(",
            "_sym_db.RegisterFileDescriptor(DESCRIPTOR)\n": (
                "builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())"
                "; builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 'caffe_pb2', globals()); r'''"
            ),
            "# @@protoc_insertion_point(module_scope)": "'''",
        },
        only_with="google.protobuf.internal.builder",
    ),
    Repair(
        "onnx_chainer.export onnx_chainer.functions.math onnx_chainer.functions.array",
        "onnx_chainer",
        "onnx 1.19",
        "ImportError: ONNX is not installed on your environment, although it is",
        _ONNX_MAPPING,
    ),
    Repair(
        "onnx_chainer.context",
        "onnx_chainer",
        "onnx 1.19",
        "AttributeError: module 'onnx' has no attribute 'mapping'",
        {
            "from onnx import numpy_helper": (
                "from onnx import numpy_helper; from rmsprop_graves._chainer7 import onnx_mapping"
            ),
            "onnx.mapping.": "onnx_mapping.",
        },
    ),
    *(
        Repair(
            f"chainerrl.agents.{module}",
            "agents of ChainerRL 0.8",
            "NumPy 2.4",
            "TypeError: only 0-dimensional arrays can be converted to Python scalars",
            _floats(*arrays),
        )
        for module, arrays in {
            "a2c": ["action_loss.array", "value_loss.array", "dist_entropy.array"],
            "a3c": ["vout.array", "vout.array[0]", "advantage.array", "pout.entropy.array[0]"],
            "acer": [
                "pi.prob(x).array",
                "mu.prob(x).array",
                "action_value.evaluate_actions(sample_action).array[0]",
                "kl.array",
                "v.array",
                "v.array[0]",
                "Q.array",
                "last_v.array",
                "action_distrib.entropy.array[0]",
            ],
            "ddpg": ["q.array", "\n            q.array.mean(axis=0)", "loss.array"],
            "dqn": ["action_value.max.array", "loss.array"],
            "nsq": ["self.target_q_function(statevar).max.array", "q.array[0]"],
            "pcl": ["x.array", "v.array", "v.array[0]", "action_distrib.entropy.array[0]", "rewards[t][i:i + 1]"],
            "pgt": ["q.array", "loss.array"],
            "ppo": [
                "action_distrib.entropy.array",
                "value.array",
                "log_prob",
                "v",
                "next_v",
                "loss_value_func.array",
                "loss_policy.array",
            ],
            "reinforce": ["action_distrib.entropy.array[0]"],
            "soft_actor_critic": ["loss1.array", "loss2.array"],
            "td3": ["loss1.array", "loss2.array", "loss.array"],
            "trpo": ["action_distrib.entropy.array", "value.array"],
        }.items()
    ),
    Repair(
        "chainerrl.agents.acer",
        "the trust region of ACER in ChainerRL 0.8",
        "NumPy 2.0",
        "sums of dot products in float32, rounding differences",
        {f"np.dot(kp.ravel(), {b}.ravel())": f"float(np.dot(kp.ravel(), {b}.ravel()))" for b in ("gp", "kp")},
    ),
    Repair(
        "chainerrl.agents.ppo",
        "advantages of PPO and TRPO in ChainerRL 0.8",
        "NumPy 2.0",
        "advantages and value targets summed in float32, rounding differences in the losses",
        {
            "transition['v_pred'] = v_pred": "transition['v_pred'] = _numpy1.number(v_pred)",
            "transition['next_v_pred'] = next_v_pred": "transition['next_v_pred'] = _numpy1.number(next_v_pred)",
            "advs - mean_advs) / (std_advs + 1e-8)": (
                "advs - _numpy1.number(mean_advs)) / (_numpy1.number(std_advs) + 1e-8)"
            ),
        },
    ),
    Repair(
        "chainerrl.agents.pcl",
        "PCL in ChainerRL 0.8 with rewards that are NumPy scalars",
        "NumPy 2.0",
        "rounding differences",
        {"self.gamma ** i * rewards[t + i]": "self.gamma ** i * _numpy1.number(rewards[t + i])"},
    ),
    Repair(
        "chainerrl.functions.weighted_sum_arrays",
        "PCL in ChainerRL 0.8 with a prioritized replay buffer",
        "NumPy 2.0",
        "TypeError: Function ... (WeightedSumArrays) has a bug",
        {"w * x": "_numpy1.number(w) * x", "w * grads[0]": "_numpy1.number(w) * grads[0]"},
    ),
    Repair(
        "chainerrl.replay_buffers.prioritized",
        "prioritized replay in ChainerRL 0.8",
        "NumPy 2.0",
        "priorities summed in float32: different samples, some of them already removed from the buffer",
        {"_clip_error(d) + self.eps": "_numpy1.number(_clip_error(d)) + self.eps"},
    ),
    Repair(
        "chainerrl.experiments.hooks",
        "learning rates that decay in ChainerRL 0.8",
        "NumPy 2.0",
        "rounding differences",
        {
            "value = np.interp(step,\n                          [1, self.total_steps],\n"
            "                          [self.start_value, self.stop_value])": (
                "value = float(np.interp(step, [1, self.total_steps], [self.start_value, self.stop_value]))"
            )
        },
    ),
    Repair(
        "chainerrl.experiments.evaluator",
        "evaluation in ChainerRL 0.8 with rewards that are arrays of one element",
        "NumPy 2.4",
        "TypeError: only 0-dimensional arrays can be converted to Python scalars",
        {f"float({name})": f"float(np.asarray({name}).item())" for name in ("r", "test_r")},
    ),
    Repair(
        "chainerrl.wrappers.atari_wrappers",
        "frames of Atari games in ChainerRL 0.8",
        "NumPy 2.0",
        "DeprecationWarning: __array__ implementation doesn't accept a copy keyword",
        {"def __array__(self, dtype=None):": "def __array__(self, dtype=None, copy=None):"},
    ),
    Repair(
        "chainerrl.recurrent",
        "import chainerrl",
        "Python 3.10",
        "AttributeError: module 'collections' has no attribute 'Iterable'",
        {"collections.Iterable": "collections.abc.Iterable"},
    ),
    Repair(
        "chainerrl.envs.ale",
        "chainerrl.envs.ale",
        "Python 3.12; setuptools 82",
        "RuntimeError: atari_py is not available, although it is",
        {
            **_PKG_RESOURCES,
            "from distutils.version import StrictVersion": "from packaging.version import Version as StrictVersion",
        },
    ),
)

_of_module: dict[str, list[Repair]] = {}
for _repair in REPAIRS:
    for _module in _repair.modules.split():
        _of_module.setdefault(_module, []).append(_repair)


def repairs_of(module: str) -> list[Repair]:
    """Returns the repairs of a module."""
    return [repair for repair in _of_module.get(module, []) if not repair.only_with or _exists(repair.only_with)]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False

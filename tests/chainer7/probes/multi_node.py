"""Calls of ChainerMN without MPI, with a communicator of two ranks that always have the same data."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from unittest import mock

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy
from chainer import serializers
from chainer.training import extensions as single_node
from chainermn import datasets, extensions, functions, iterators, links

from .inputs import DTYPE, h, normal, small
from .training import ONE_BY_ONE, _each_kind, _reported, _trained


class _Twins(chainermn.CommunicatorBase):
    """A communicator of two ranks with the same data: the other rank sends whatever this one sends."""

    size, rank, intra_rank, intra_size, inter_rank, inter_size = 2, 0, 0, 2, 0, 1

    def __init__(self):
        super().__init__()
        self.sent = []

    def send(self, data, dest, tag=0):
        self.sent.append(data)

    def recv(self, source, tag=0):
        return self.sent.pop(0)

    send_obj, recv_obj = send, recv

    def bcast(self, data, max_buf_len=None, root=0):
        return data

    def gather(self, data, root=0):
        return (data,) * self.size

    def allgather(self, x):
        return (x,) * self.size

    def alltoall(self, xs):
        return (xs[0],) * self.size

    def scatter(self, xs, root=0):
        return xs[0]

    def allreduce(self, data):
        return data + data

    def split(self, color, key):
        return self

    bcast_obj, gather_obj, allreduce_obj = bcast, gather, allreduce

    def bcast_data(self, model):
        pass

    def multi_node_mean_grad(self, model, zero_fill=False):
        for _, param in sorted(model.namedparams()):
            param.grad = (param.grad + param.grad) / 2

    def _multi_node_mean(self, sendbuf, recvbuf):
        recvbuf *= 1


class _One(_Twins):
    """A communicator of one rank."""

    size, intra_size = 1, 1


def _normalized(x, h, make, steps=3):
    link = make(h)
    for _ in range(steps):
        y = link(x)
    with chainer.using_config("train", False):
        return y, link(x), link


def _without_mpi(make, *args, **options):
    """Calls a function with a stand-in for mpi4py, which Chainer only imports to check a communicator's type."""
    module = mock.MagicMock()
    with mock.patch.dict(sys.modules, {"mpi4py": module, "mpi4py.MPI": module.MPI}):
        return make(*args, **options)


def _mnbn(h):
    return _without_mpi(links.MultiNodeBatchNormalization, 3, _Twins(), h(0.9), h(1e-3))


def _copied(x):
    link = _mnbn(float)
    link(x)
    other = copy.deepcopy(link)
    return other(x), other, other.comm is link.comm


def _replaced(x):
    model = chainer.Sequential(L.BatchNormalization(3), L.Linear(3, 3))
    model = _without_mpi(links.create_mnbn_model, model, _Twins())
    return model(x), model, [type(link).__name__ for link in model]


class _Part(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.linear = L.Linear(3, 3)

    def forward(self, x):
        return F.relu(self.linear(x))


def _chained(x):
    """Runs a MultiNodeChainList of two parts, where the first part's output is the second's input."""
    model = links.MultiNodeChainList(comm=_Twins())
    model.add_link(_Part(), rank_in=None, rank_out=0)
    model.add_link(_Part(), rank_in=0, rank_out=None)
    return model(x), model


def _optimized(dtype, **options):
    model = L.Linear(3, 2, initialW=0.5)
    optimizer = chainermn.create_multi_node_optimizer(chainer.optimizers.Adam(0.1), _Twins(), **options)
    optimizer.setup(model)
    x = numpy.linspace(-1, 2, 12).reshape(4, 3).astype(dtype)
    for _ in range(5):
        optimizer.update(lambda: F.sum(model(x) ** 2))
    return model, optimizer.t


def _aggregated(dtype, kind, aggregator=None, count=1000):
    """Aggregates the observations of a thousand iterations on two nodes."""
    aggregate = extensions.ObservationAggregator(
        _Twins(), "main/loss", "mean", comm_trigger=(count, "iteration"), aggregator=aggregator
    )
    seen, _, _ = _trained(
        (aggregate, ONE_BY_ONE),
        observe=_reported(dtype, 3.75, kind, 2),
        iterations=count,
        look=lambda trainer: trainer.observation.get("mean"),
    )
    return seen[-1]


def _stopped(dtype, kind):
    trigger = extensions.MultiNodeEarlyStoppingTrigger(_Twins(), check_trigger=(5, "iteration"), patience=2)
    fired = []
    marked = chainer.training.make_extension(trigger=trigger)(lambda trainer: fired.append(trainer.updater.iteration))
    _trained(marked, observe=_reported(dtype, 0.75, kind, 5), iterations=40)
    return fired, trigger.actual_trigger.best


def _evaluator(dtype, kind, count=300):
    observe = _reported(dtype, 3.75, kind, 2)

    class Target(chainer.Chain):
        calls = 0

        def forward(self, x):
            self.calls += 1
            chainer.report({"loss": observe(self.calls)["main/loss"]}, self)
            return self.calls

    data = chainer.iterators.SerialIterator([numpy.zeros(3, "f")] * count, 1, repeat=False, shuffle=False)
    return data, Target()


def _evaluated(dtype, kind):
    return chainermn.create_multi_node_evaluator(single_node.Evaluator(*_evaluator(dtype, kind)), _Twins())()


def _generic(dtype):
    data, target = _evaluator(dtype, "scalar", 10)
    return extensions.GenericMultiNodeEvaluator(_Twins(), data, target)(None)


def _persistent(dtype):
    link = L.BatchNormalization(3, dtype=dtype)
    link.avg_mean[...] = 0.1
    extensions.AllreducePersistent(link, _Twins())()
    return link


def _checkpointed():
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = chainermn.create_multi_node_checkpointer("name", _One(), path=folder)
        _, _, trainer = _trained((checkpointer, (5, "iteration")), iterations=10)
        trainer.updater.iteration = 0
        os.makedirs(folder, exist_ok=True)
        checkpointer.save(trainer, 7)
        names = sorted(os.listdir(folder))
        checkpointer.maybe_load(trainer, path=folder)
        return names, trainer.updater.iteration


def _snapshot():
    snapshot = extensions.multi_node_snapshot(_Twins(), single_node.snapshot(), [[0, 1]])
    return _trained((snapshot, (10, "iteration")), iterations=20)[1]


def _iterated(make):
    def probe():
        numpy.random.seed(0)
        iterator = make(chainer.iterators.SerialIterator(_Pairs(), 3, shuffle=True))
        found = [next(iterator) for _ in range(6)]
        saved = {}
        iterator.serialize(serializers.DictionarySerializer(saved))
        return found, iterator.epoch_detail, iterator.is_new_epoch, saved

    return probe


class _Pairs(chainer.dataset.DatasetMixin):
    def __len__(self):
        return 7

    def get_example(self, index):
        return numpy.float32(index), numpy.float32(2 * index)


class _Waiting(_Twins):
    """The receiving rank."""

    rank = 1

    def __init__(self, messages):
        super().__init__()
        self.sent = messages

    def bcast(self, data, max_buf_len=None, root=0):
        return self.sent.pop(0)


def _both_ends():
    """Returns a batch as the master sends it, and as the other rank receives it."""
    messages = []

    class Master(_Twins):
        def bcast(self, data, max_buf_len=None, root=0):
            messages.append(data)
            return data

    master = iterators.create_multi_node_iterator(chainer.iterators.SerialIterator(_Pairs(), 3), Master())
    sent = [next(master) for _ in range(4)]
    other = iterators.create_multi_node_iterator(None, _Waiting(messages))
    return sent, [next(other) for _ in range(4)], other.epoch_detail


def _collective(call):
    return (
        lambda x=normal[2, 3]: call(_Twins(), x),
        lambda x=normal[2, 3]: call(_One(), x),
    )


def _connected(x, y):
    delegate = functions.send(x, _twins_with(y), rank=1)
    return functions.pseudo_connect(delegate, y)


def _twins_with(y):
    comm = _Twins()
    comm.sent.append(y.array)
    return comm


def _sent(x):
    """Sends an array to the other rank and receives it back; gradients take the same path in reverse."""
    comm = _Twins()
    delegate = functions.send(x, comm, rank=1)
    return functions.recv(comm, rank=1, delegate_variable=delegate)


def _stacked(x):
    link = links.create_multi_node_n_step_rnn(L.NStepLSTM(2, 3, 2, 0.0), _Twins(), rank_in=None, rank_out=None)
    return link([x, x[:1]])[:3], link


def _scattered(n, root=0, **options):
    return [
        [scattered[index] for index in range(len(scattered))]
        for scattered in (datasets.scatter_dataset(list(range(n)), comm(), root, **options) for comm in (_Twins, _One))
    ]


PROBES = {
    "chainermn": {
        "CommunicatorBase": lambda: [_Twins().rank, _Twins().size, _Twins().within_config_scope],
        "create_multi_node_optimizer": lambda dtype=DTYPE: _optimized(dtype),
        "create_multi_node_evaluator": _each_kind(_evaluated),
        "create_multi_node_checkpointer": _checkpointed,
        "scatter_dataset": (
            lambda: _scattered(7),
            lambda: _scattered(7, shuffle=True, seed=0),
            lambda: _scattered(7, force_equal_length=False),
        ),
        "scatter_index": lambda: datasets.scatter_index(7, _Twins()),
        "MultiNodeChainList": lambda x=normal[4, 3]: _chained(x),
        "DataSizeError": lambda: issubclass(datasets.DataSizeError, RuntimeError),
    },
    "chainermn.functions": {
        "allgather": _collective(functions.allgather),
        "alltoall": _collective(lambda comm, x: functions.alltoall(comm, (x,) * comm.size)),
        "bcast": _collective(functions.bcast),
        "gather": _collective(functions.gather),
        "scatter": _collective(lambda comm, x: functions.scatter(comm, (x,) * comm.size)),
        "send": lambda x=normal[2, 3]: _sent(x),
        "recv": lambda x=normal[2, 3]: _sent(x),
        "pseudo_connect": lambda x=normal[2, 3], y=normal[2, 3]: _connected(x, y),
    },
    "chainermn.links": {
        "MultiNodeBatchNormalization": (
            lambda x=normal[4, 3], h=h: _normalized(x, h, _mnbn),
            lambda x=normal[4, 3]: _normalized(x, float, _mnbn, steps=300),
            lambda x=normal[4, 3]: _copied(x),
        ),
        "create_mnbn_model": lambda x=normal[4, 3]: _replaced(x),
        "create_multi_node_n_step_rnn": lambda x=small[3, 3]: _stacked(x),
    },
    "chainermn.extensions": {
        "AllreducePersistent": lambda dtype=DTYPE: _persistent(dtype),
        "GenericMultiNodeEvaluator": lambda dtype=DTYPE: _generic(dtype),
        "MultiNodeEarlyStoppingTrigger": _each_kind(_stopped),
        "ObservationAggregator": (
            *_each_kind(_aggregated),
            lambda dtype=DTYPE: _aggregated(dtype, "scalar", lambda lists: lists[0][0] + lists[1][1], 10),
        ),
        "multi_node_snapshot": _snapshot,
    },
    "chainermn.datasets": {
        "create_empty_dataset": lambda: [
            len(datasets.create_empty_dataset([1, 2])),
            datasets.create_empty_dataset([1])[0],
        ],
    },
    "chainermn.iterators": {
        "create_multi_node_iterator": (
            _both_ends,
            _iterated(lambda iterator: iterators.create_multi_node_iterator(iterator, _Twins())),
        ),
        "create_synchronized_iterator": _iterated(
            lambda iterator: iterators.create_synchronized_iterator(iterator, _Twins())
        ),
    },
}

LEFT_OUT = {
    "chainermn.create_communicator": "needs MPI",
}

"""Calls of every dataset, iterator, converter and serializer."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile

import chainer.links as L
import numpy
from chainer import dataset, datasets, iterators, serializers
from chainer.dataset import tabular

from .inputs import DTYPE, h, labels, normal


def _folder(call, *args):
    """Returns the result of a call that gets an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return call(folder, *args)


def _padded(dtype, padding, shapes=((2,), (3,))):
    arrays = [numpy.arange(numpy.prod(shape)).reshape(shape).astype(dtype) for shape in shapes]
    return dataset.concat_examples(arrays, padding=padding)


CONVERTERS = (
    lambda x=normal.raw[3, 2], t=labels[3]: dataset.concat_examples(list(zip(x, t))),
    lambda x=normal.raw[3, 2], t=labels[3]: dataset.concat_examples([{"x": a, "t": b} for a, b in zip(x, t)]),
    lambda x=normal.raw[3]: dataset.concat_examples(list(x)),
    lambda x=normal.raw[3]: dataset.concat_examples([float(one) for one in x]),
    lambda x=normal.raw[3]: dataset.concat_examples([[int(one), 2] for one in x]),
    lambda x=normal.raw[3, 2], t=labels[3]: dataset.concat_examples(list(zip(x, t)), "@numpy"),
    lambda dtype=DTYPE, h=h: _padded(dtype, h(1)),
    lambda dtype=DTYPE, h=h: _padded(dtype, h(-1)),
    lambda dtype=DTYPE, h=h: _padded(dtype, h(300)),
    lambda dtype=DTYPE, h=h: _padded(dtype, h(0.75)),
    lambda dtype=DTYPE, h=h: _padded(dtype, h(0), ((2, 3), (1, 4), (3, 1))),
    lambda dtype=DTYPE: _padded(dtype, 1e6),
    lambda dtype=DTYPE: _padded(dtype, None, ((2,), (3,))),
    lambda x=normal.raw[2], y=normal.raw[3], h=h: dataset.concat_examples([(x, y), (y, x)], padding=(h(0), h(1))),
    lambda: dataset.concat_examples([]),
)


@dataset.converter()
def _doubling(batch, device):
    return [dataset.to_device(device, 2 * numpy.stack(batch))]


class _Doubling(dataset.Converter):
    def __call__(self, batch, device=None):
        return 2 * numpy.stack(batch)


def _root(folder):
    """Shows and changes the folder in which Chainer keeps datasets."""
    before = dataset.get_dataset_root()
    dataset.set_dataset_root(folder)
    try:
        made = (
            os.path.relpath(dataset.get_dataset_directory("a/b"), folder),
            os.path.isdir(os.path.join(folder, "a/b")),
        )
        return os.path.relpath(dataset.get_dataset_root(), folder), made
    finally:
        dataset.set_dataset_root(before)


def _cached(folder):
    path = os.path.join(folder, "x.npy")

    def create(path):
        numpy.save(path, numpy.arange(3))
        return "made"

    before = dataset.get_dataset_root()
    dataset.set_dataset_root(folder)
    try:
        return [dataset.cache_or_load_file(path, create, numpy.load) for _ in range(2)]
    finally:
        dataset.set_dataset_root(before)


class _Squares(dataset.DatasetMixin):
    def __len__(self):
        return 5

    def get_example(self, index):
        return numpy.float32(index**2)


class _Table(dataset.TabularDataset):
    keys, mode = ("a", "b"), tuple

    def __init__(self, dtype):
        self.a, self.b = numpy.arange(4).astype(dtype), numpy.arange(8).reshape(4, 2).astype(dtype)

    def __len__(self):
        return 4

    def get_examples(self, indices, key_indices):
        columns = (self.a, self.b) if key_indices is None else [(self.a, self.b)[index] for index in key_indices]
        return tuple(column if indices is None else column[indices] for column in columns)


def _tabular(dtype):
    table = _Table(dtype)
    other = table.transform(("c",), lambda a, b: (b[::-1],))
    batch = table.transform_batch(("c",), lambda a, b: (a + a,))
    return [
        table[1],
        table.fetch(),
        table.convert(table.fetch()),
        table.asdict()[2],
        table.astuple().fetch(),
        table.slice[[3, 0], ("b",)].fetch(),
        table.slice[1:].fetch(),
        table.concat(table).fetch(),
        table.join(other).fetch(),
        other.fetch(),
        batch.fetch(),
        table.with_converter(lambda a, b: a).convert(table.fetch()),
        tabular.from_data({"x": table.a, "y": list(table.b)})[1],
        tabular.from_data((table.a, ("y", lambda index: 2 * float(index))), size=4).fetch(),
    ]


def _images(folder, dtype, label_dtype, mode="RGB"):
    """Probes of datasets of images and labels in files, in a zip file, and in several zip files."""
    from PIL import Image

    size = (4, 3) if mode == "L" else (4, 3, 3)
    for index in range(2):
        pixels = (numpy.arange(numpy.prod(size)) * 5 + index).reshape(size).astype("u1")
        Image.fromarray(pixels).save(os.path.join(folder, f"{index}.png"))
    with zipfile.ZipFile(os.path.join(folder, "images.zip"), "w") as archive:
        for name in ("0.png", "1.png"):
            archive.write(os.path.join(folder, name), name)
    with open(os.path.join(folder, "labels.txt"), "w") as file:
        file.write("0.png 3\n1.png -1\n")
    return {
        "ImageDataset": lambda: datasets.ImageDataset(["0.png", "1.png"], folder, dtype),
        "LabeledImageDataset": lambda: datasets.LabeledImageDataset(
            os.path.join(folder, "labels.txt"), folder, dtype, label_dtype
        ),
        "LabeledZippedImageDataset": lambda: datasets.LabeledZippedImageDataset(
            os.path.join(folder, "images.zip"), os.path.join(folder, "labels.txt"), dtype, label_dtype
        ),
        "ZippedImageDataset": lambda: datasets.ZippedImageDataset(os.path.join(folder, "images.zip"), dtype),
        "MultiZippedImageDataset": lambda: datasets.MultiZippedImageDataset(
            [os.path.join(folder, "images.zip")] * 2, dtype
        ),
    }


IMAGES = (
    "ImageDataset",
    "LabeledImageDataset",
    "LabeledZippedImageDataset",
    "ZippedImageDataset",
    "MultiZippedImageDataset",
)


def _image_dataset(name):
    def probe(dtype=DTYPE):
        def read(folder):
            found = {}
            for label_dtype in ("i4", "u1", "f2"):
                for mode in ("RGB", "L"):
                    made = _images(folder, dtype, label_dtype, mode)[name]()
                    try:
                        found[f"{label_dtype} {mode}"] = [made[index] for index in range(len(made))]
                    except Exception as error:
                        found[f"{label_dtype} {mode}"] = type(error).__name__
                    made = None
            return found

        return _folder(read)

    return probe


def _pickled(folder, x):
    path = os.path.join(folder, "data")
    with datasets.open_pickle_dataset_writer(path) as writer:
        for one in x:
            writer.write(one)
        writer.flush()
    with datasets.open_pickle_dataset(path) as reader:
        return [reader[index] for index in (1, 0)], len(reader)


def _pickled_in_memory(x):
    file = io.BytesIO()
    writer = datasets.PickleDatasetWriter(file)
    for one in x:
        writer.write(one)
    return [datasets.PickleDataset(file)[index] for index in range(len(x))]


def _lines(folder):
    path = os.path.join(folder, "text")
    with open(path, "w", encoding="utf8") as file:
        file.write("one\n\ntwo\nthree")
    text = datasets.TextDataset([path, path], encoding="utf8", filter_func=lambda *lines: lines[0].strip() != "two")
    found = [text[index] for index in range(len(text))]
    text.close()
    return found


def _all(made):
    return [made[index] for index in range(len(made))]


def _halves(split):
    return lambda x=normal.raw[7, 2]: [_all(half) for half in split(x)]


def _folds(split):
    return lambda x=normal.raw[6]: [[_all(part) for part in fold] for fold in split(x)]


def _stored(name, path, arrays, *options):
    """Probes of a dataset that Chainer would download; its files are in place instead."""

    def read(folder, get):
        before = dataset.get_dataset_root()
        dataset.set_dataset_root(folder)
        try:
            os.makedirs(os.path.join(folder, "pfnet/chainer", path))
            for file, contents in arrays.items():
                numpy.savez(os.path.join(folder, "pfnet/chainer", path, file), **contents)
            # The first element of a dataset of pairs is enough.
            return [made if isinstance(made, numpy.ndarray) else made[:1] for made in get(getattr(datasets, name))]
        finally:
            dataset.set_dataset_root(before)

    return tuple(
        lambda dtype=DTYPE, h=h, option=option: _folder(read, lambda get: option(get, dtype, h)) for option in options
    )


MNIST = {"x": (numpy.arange(2 * 784) % 251).astype("u1").reshape(2, 784), "y": numpy.array([7, 200], "u1")}
MNIST_OPTIONS = (
    lambda get, dtype, h: get(scale=h(1.1), dtype=dtype),
    lambda get, dtype, h: get(ndim=3, rgb_format=True, dtype=dtype, label_dtype="u1"),
    lambda get, dtype, h: get(withlabel=False, ndim=2, dtype=dtype, scale=255.0),
)
CIFAR = (numpy.arange(2 * 3072) % 251).astype("u1").reshape(2, 3072)
CIFAR = {"train_x": CIFAR, "test_x": CIFAR, "train_y": numpy.array([7, 9]), "test_y": numpy.array([1, 2])}
CIFAR_OPTIONS = (
    lambda get, dtype, h: get(scale=h(1.1), dtype=dtype),
    lambda get, dtype, h: get(withlabel=False, ndim=1, dtype=dtype),
)
SVHN = {"x": (numpy.arange(2 * 3072) % 251).astype("u1").reshape(32, 32, 3, 2), "y": numpy.array([[7], [9]], "u1")}
WORDS = {name: {"x": numpy.array([0, 1, 2, 1], "i")} for name in ("train", "valid", "test")}


def _iterated(make, rounds=8):
    """Probes of an iterator: every batch, and the iterator's own attributes."""

    def probe(n=7):
        iterator = make(list(range(n)))
        found = []
        for _, batch in zip(range(rounds), iterator):
            found.append([batch, iterator.epoch, iterator.is_new_epoch, iterator.epoch_detail])
            found.append(iterator.previous_epoch_detail)
        saved = {}
        iterator.serialize(serializers.DictionarySerializer(saved))
        other = make(list(range(n)))
        other.serialize(serializers.NpzDeserializer(saved))
        found.append([saved, other.epoch_detail, next(other, None)])
        iterator.reset()
        found.append(next(iterator))
        iterator.finalize()
        other.finalize()
        return found

    return probe


def _state(seed=0):
    return numpy.random.RandomState(seed)


ORDERS = {
    "ShuffleOrderSampler": lambda: [
        sampler(numpy.arange(7), 3)
        for sampler in (iterators.ShuffleOrderSampler(_state()), iterators.ShuffleOrderSampler())
    ],
    "OrderSampler": lambda: iterators.OrderSampler()(numpy.arange(7), 3),
}


class _Everything(L.Linear):
    """A link with everything that can be saved: parameters, arrays, and numbers of every kind."""

    def __init__(self, dtype):
        super().__init__(3, 2, initialW=numpy.arange(6).reshape(2, 3).astype(dtype), initial_bias=numpy.ones(2, dtype))
        for name, value in {
            "array": numpy.arange(3).astype(dtype),
            "number": 0.1,
            "count": 3,
            "scalar": numpy.float64(0.1),
            "zero_d": numpy.array(0.5, dtype),
            "nothing": None,
            "text": "text",
        }.items():
            self.add_persistent(name, value)


def _other(dtype):
    other = _Everything(dtype)
    for param in other.params():
        param.array[...] = 0
    other.array[...] = 0
    other.number, other.count, other.scalar, other.text = 0.0, 0, numpy.float64(0), ""
    other.zero_d = numpy.zeros_like(other.zero_d)
    return other


def _saved_npz(dtype, save, load):
    file = io.BytesIO()
    save(file, _Everything(dtype))
    found = {}
    for target in (dtype, numpy.dtype("float64")):
        file.seek(0)
        other = _other(target)
        load(file, other)
        found[target.name] = _contents(other)
    file.seek(0)
    with numpy.load(file, allow_pickle=True) as archive:
        return found, dict(archive)


def _saved_hdf5(folder, dtype, save, load):
    path = os.path.join(folder, "file.h5")
    link, other = _Everything(dtype), _other(dtype)
    link.text = other.text = None  # HDF5 cannot store NumPy strings
    save(path, link)
    load(path, other)
    return _contents(other)


def _contents(link):
    """Returns a link and the types of its values that are not arrays."""
    return [link, *(type(getattr(link, name)).__name__ for name in sorted(link._persistent))]


def _save_h5(path, link):
    import h5py

    with h5py.File(path, "w") as file:
        serializers.HDF5Serializer(file).save(link)


def _load_h5(path, link):
    import h5py

    with h5py.File(path, "r") as file:
        serializers.HDF5Deserializer(file).load(link)


def _hdf5(save, load):
    return lambda dtype=DTYPE: _folder(_saved_hdf5, dtype, save, load)


def _to_dictionary(link):
    serializer = serializers.DictionarySerializer()
    serializer.save(link)
    return serializer.target


def _from_dictionary(saved, link, **options):
    serializers.NpzDeserializer(saved, **options).load(link)
    return _contents(link)


NPZ = lambda dtype=DTYPE: _saved_npz(dtype, serializers.save_npz, serializers.load_npz)  # noqa: E731
HDF5 = _hdf5(serializers.save_hdf5, serializers.load_hdf5)

PROBES = {
    "chainer.dataset": {
        "concat_examples": CONVERTERS,
        "to_device": lambda x=normal.raw[2]: [dataset.to_device(device, x) for device in (None, -1, "@numpy")],
        "converter": lambda x=normal.raw[2, 3]: _doubling(list(x), None),
        "Converter": lambda x=normal.raw[2, 3]: _Doubling()(list(x)),
        "Iterator": lambda: [dataset.Iterator().finalize(), iter(dataset.Iterator()) is not None],
        "DatasetMixin": lambda: (_Squares()[1], _Squares()[1:3], _Squares()[numpy.array([4, -1])], len(_Squares())),
        "TabularDataset": lambda dtype=DTYPE: _tabular(dtype),
        "get_dataset_root": lambda: _folder(_root),
        "set_dataset_root": lambda: _folder(_root),
        "get_dataset_directory": lambda: _folder(_root),
        "cache_or_load_file": lambda: _folder(_cached),
    },
    "chainer.dataset.convert": {
        "concat_examples_func": lambda x=normal.raw[3, 2]: dataset.convert.concat_examples_func(list(x)),
    },
    "chainer.datasets": {
        **{name: _image_dataset(name) for name in IMAGES},
        "ConcatenatedDataset": lambda x=normal.raw[2, 3], y=normal.raw[1, 3]: _all(datasets.ConcatenatedDataset(x, y)),
        "DictDataset": lambda x=normal.raw[2, 3], t=labels[2]: (
            _all(datasets.DictDataset(x=x, t=t)),
            datasets.DictDataset(x=x, t=t)[:1],
        ),
        "TupleDataset": lambda x=normal.raw[2, 3], t=labels[2]: (
            _all(datasets.TupleDataset(x, t)),
            datasets.TupleDataset(x, t)[::-1],
        ),
        "TransformDataset": lambda x=normal.raw[2, 3]: _all(datasets.TransformDataset(x, lambda one: one * 2)),
        "PickleDataset": lambda x=normal.raw[3, 2]: _pickled_in_memory(x),
        "PickleDatasetWriter": lambda x=normal.raw[3, 2]: _pickled_in_memory(x),
        "open_pickle_dataset": lambda x=normal.raw[3, 2]: _folder(_pickled, x),
        "open_pickle_dataset_writer": lambda x=normal.raw[3, 2]: _folder(_pickled, x),
        "TextDataset": lambda: _folder(_lines),
        "SubDataset": lambda x=normal.raw[5]: _all(datasets.SubDataset(x, 1, 4, numpy.array([4, 3, 2, 1, 0]))),
        "split_dataset": _halves(lambda x: datasets.split_dataset(x, numpy.int64(3))),
        "split_dataset_n": _halves(lambda x: datasets.split_dataset_n(x, 3, order=numpy.arange(7)[::-1])),
        "split_dataset_n_random": _halves(lambda x: datasets.split_dataset_n_random(x, 3, seed=0)),
        "split_dataset_random": _halves(lambda x: datasets.split_dataset_random(x, 3, seed=0)),
        "get_cross_validation_datasets": _folds(lambda x: datasets.get_cross_validation_datasets(x, 3)),
        "get_cross_validation_datasets_random": _folds(
            lambda x: datasets.get_cross_validation_datasets_random(x, 3, seed=0)
        ),
        "get_mnist": _stored("get_mnist", "mnist", {"train": MNIST, "test": MNIST}, *MNIST_OPTIONS),
        "get_fashion_mnist": _stored(
            "get_fashion_mnist", "fashion-mnist", {"train": MNIST, "test": MNIST}, *MNIST_OPTIONS[:1]
        ),
        "get_fashion_mnist_labels": lambda: datasets.get_fashion_mnist_labels(),
        "get_kuzushiji_mnist": _stored(
            "get_kuzushiji_mnist", "kuzushiji_mnist", {"train": MNIST, "test": MNIST}, *MNIST_OPTIONS[:1]
        ),
        "get_kuzushiji_mnist_labels": lambda: datasets.get_kuzushiji_mnist_labels(),
        "get_cifar10": _stored("get_cifar10", "cifar", {"cifar-10": CIFAR}, *CIFAR_OPTIONS),
        "get_cifar100": _stored("get_cifar100", "cifar", {"cifar-100": CIFAR}, *CIFAR_OPTIONS),
        "get_svhn": _stored("get_svhn", "svhn", {"train": SVHN, "test": SVHN}, *CIFAR_OPTIONS[:1]),
        "get_ptb_words": _stored("get_ptb_words", "ptb", WORDS, lambda get, dtype, h: get()),
    },
    "chainer.iterators": {
        "SerialIterator": (
            _iterated(lambda data: iterators.SerialIterator(data, 3, shuffle=False)),
            _iterated(lambda data: iterators.SerialIterator(data, 3)),
            _iterated(lambda data: iterators.SerialIterator(data, 3, repeat=False), rounds=5),
            _iterated(
                lambda data: iterators.SerialIterator(
                    data, numpy.int64(2), order_sampler=iterators.ShuffleOrderSampler(_state())
                )
            ),
            _iterated(lambda data: iterators.SerialIterator(data, 3, shuffle=False), rounds=700),
        ),
        "MultithreadIterator": (
            _iterated(lambda data: iterators.MultithreadIterator(data, 3, shuffle=False)),
            _iterated(lambda data: iterators.MultithreadIterator(data, 3, repeat=False), rounds=5),
        ),
        **ORDERS,
    },
    "chainer.serializers": {
        "save_npz": NPZ,
        "load_npz": NPZ,
        "save_hdf5": HDF5,
        "load_hdf5": HDF5,
        "HDF5Serializer": _hdf5(_save_h5, _load_h5),
        "HDF5Deserializer": _hdf5(_save_h5, _load_h5),
        "DictionarySerializer": lambda dtype=DTYPE: _to_dictionary(_Everything(dtype)),
        "NpzDeserializer": (
            lambda dtype=DTYPE: _from_dictionary(_to_dictionary(_Everything(dtype)), _other(dtype)),
            lambda dtype=DTYPE: _from_dictionary(_to_dictionary(_Everything(dtype)), _other("float32")),
            lambda dtype=DTYPE: _from_dictionary({"W": numpy.ones((2, 3), dtype)}, _other(dtype), strict=False),
            lambda dtype=DTYPE: _from_dictionary({"W": numpy.ones((2, 3), dtype)}, _other(dtype)),
        ),
    },
}

NEEDS = {
    **{f"chainer.datasets.{name}": "PIL" for name in PROBES["chainer.datasets"] if name.endswith("ImageDataset")},
    **{f"chainer.serializers.{name}": "h5py" for name in PROBES["chainer.serializers"] if "hdf5" in name.lower()},
    "chainer.datasets.get_svhn": "scipy",
}

LEFT_OUT = {
    "chainer.dataset.ConcatWithAsyncTransfer": "needs a GPU",
    "chainer.dataset.cached_download": "downloads",
    "chainer.dataset.convert.Conveyor": "needs a GPU",
    "chainer.datasets.get_ptb_words_vocabulary": "downloads",
    "chainer.iterators.DaliIterator": "needs NVIDIA DALI",
    "chainer.iterators.MultiprocessIterator": "starts processes, which have tests of their own",
}

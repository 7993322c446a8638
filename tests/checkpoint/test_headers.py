"""Loading needs only the header to refuse an entry that does not fit. The error names file and entry."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import chainer
import numpy
import pytest
from chainer.serializers import NpzDeserializer, save_npz
from checkpoint.training import entries_of, everything_of, fresh, model_of, train
from file_formats import h5py, needs_h5py, write_hdf5, write_npz

import rmsprop_graves
from rmsprop_graves import RMSpropGraves

MANY = 10**9
MOST_BYTES = 20 * 10**6


def header_of(shape, dtype="<f4", order=False):
    """Write the header of an npy file by hand."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode("latin1")
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def write_members(path, members, method=zipfile.ZIP_STORED):
    """Write an optimizer's npz file in which some members are replaced or added."""
    content = {}
    for key, value in entries_of(train(fresh(), 1)).items():
        array = io.BytesIO()
        numpy.save(array, value)
        content[f"{key}.npy"] = array.getvalue()
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**content, **members}.items():
            with archive.open(name, "w", force_zip64=True) as member:
                for block in [data] if isinstance(data, bytes) else data:
                    member.write(block)


def zeros_after(header, megabytes):
    """Yield a header and megabytes of zeros, which compress to a thousandth."""
    yield header
    for _ in range(megabytes):
        yield bytes(2**20)


def peak_of(function):
    """Return the peak memory of Python and NumPy, in bytes, while a function runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_refused(load, optimizer, message):
    """Assert that loading fails with a ValueError, leaves the optimizer unchanged and takes little memory."""
    before = everything_of(optimizer)

    def attempt():
        with pytest.raises(ValueError, match=message):
            load()

    assert peak_of(attempt) < MOST_BYTES
    assert everything_of(optimizer) == before


NPZ_LOADERS = pytest.mark.parametrize(
    "load", [chainer.serializers.load_npz, rmsprop_graves.load_npz], ids=["Chainer's", "ours"]
)


@NPZ_LOADERS
@pytest.mark.parametrize("entry", ["t", "epoch", "p0/t", "p0/n", "p1/delta", "p2/g", "p1/fp32_param"])
def test_a_small_npz_file_that_unpacks_to_much_is_refused_before_that(tmp_path, load, entry):
    """64 MB of zeros take 64 KB in the file."""
    path = str(tmp_path / "hostile.npz")
    data = zeros_after(header_of((64 * 2**20 // 4,)), 64)
    write_members(path, {f"{entry}.npy": data}, zipfile.ZIP_DEFLATED)
    optimizer = train(fresh(), 2)
    assert_refused(lambda: load(path, optimizer), optimizer, rf"hostile\.npz: /?{entry}: found .*shape \(16777216,\)")


@NPZ_LOADERS
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize(
    "header",
    [
        header_of((MANY,)),
        header_of((2**62, 2**62)),
        header_of((2**32, 2**32)),
        header_of((-2, -2)),
        header_of((4,), "<f8"),
        header_of((10**30,)),
        header_of((4,), "S1000000000"),
        header_of((4,), "(1000000,)f4"),
        header_of("(__import__('os').getcwd(),)"),
        header_of("(" * 3000),
        header_of((MANY,), order=True),
        b"\x93NUMPY\1\0\xff\xff",
        b"\x93NUMPY\2\0\xff\xff\xff\x7f",
        b"\x93NUMPY\7\0",
        b"\x93NUM",
        b"",
    ],
    ids=str,
)
def test_a_lying_npy_header_is_refused(tmp_path, load, header, method):
    """The header claims more data than the file has, or is invalid. An uninitialized parameter accepts any shape."""
    path = str(tmp_path / "hostile.npz")
    write_members(path, {"p1/n.npy": header + bytes(16)}, method)
    for optimizer in (train(fresh(), 2), RMSpropGraves().setup(Lazy())):
        before = entries_as_bytes(optimizer)
        with pytest.raises(ValueError, match=r"hostile\.npz: /?p1/n(\.npy)?: "):
            load(path, optimizer)
        assert entries_as_bytes(optimizer) == before


def entries_as_bytes(optimizer):
    """Return the entries that would be saved, as bytes."""
    return {key: numpy.asarray(value).tobytes() for key, value in entries_of(optimizer).items()}


class Lazy(chainer.Link):
    """A link whose parameters have no shape yet."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.p0, self.p1, self.p2 = (chainer.Parameter() for _ in range(3))


@NPZ_LOADERS
def test_states_of_different_shapes_are_refused_before_one_is_read(tmp_path, load):
    """An uninitialized parameter accepts any shape, but all of its states must have the same shape."""
    path = str(tmp_path / "hostile.npz")
    data = zeros_after(header_of((16 * 2**20,)), 64)
    write_members(path, {"p1/n.npy": data}, zipfile.ZIP_DEFLATED)
    optimizer = RMSpropGraves().setup(Lazy())

    def attempt():
        with pytest.raises(ValueError, match=r"p1: found n of shape \(16777216,\), g of shape \(4,\)"):
            load(path, optimizer)

    assert peak_of(attempt) < MOST_BYTES


@pytest.mark.filterwarnings("ignore:Duplicate name")
@NPZ_LOADERS
@pytest.mark.parametrize("second", ["p1/n.npy", "p1/n"])
def test_an_entry_that_occurs_twice_is_refused(tmp_path, load, second):
    """Which of them is read would depend on the reader."""
    path = tmp_path / "hostile.npz"
    save_npz(str(path), train(fresh(), 1))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(second, archive.read("p1/n.npy"))
    with pytest.raises(ValueError, match=r"hostile\.npz: .*p1/n"):
        load(str(path), train(fresh(), 2))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(tmp_path, method):
    """bzip2 and LZMA can unpack a small file to gigabytes."""
    path = str(tmp_path / "hostile.npz")
    write_members(path, {}, method)
    with pytest.raises(ValueError, match=r"hostile\.npz: .*t(\.npy)?: .*compressed by method"):
        rmsprop_graves.load_npz(path, fresh())


@needs_h5py
@pytest.mark.parametrize("load_name", ["Chainer's", "ours"])
@pytest.mark.parametrize("entry", ["t", "epoch", "p0/t", "p0/n", "p1/delta", "p2/g"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_small_hdf5_file_that_claims_much_is_refused_before_it_is_read(tmp_path, load_name, entry, compression):
    """A dataset that was never written takes no space in the file."""
    path = str(tmp_path / "hostile.h5")
    with h5py.File(path, "w") as file:
        for key, value in {**entries_of(train(fresh(), 1)), entry: None}.items():
            if value is not None:
                file[key] = value
        file.create_dataset(entry, (MANY,), "f4", compression=compression)
    optimizer = train(fresh(), 2)
    load = {"Chainer's": chainer.serializers.load_hdf5, "ours": rmsprop_graves.load_hdf5}[load_name]
    assert_refused(lambda: load(path, optimizer), optimizer, rf"hostile\.h5: /?{entry}: .*1000000000")


@pytest.mark.parametrize("value", [None, "text", b"text", [1.0], (), {}, object(), 3, 1j, numpy.ones, float("nan")])
@pytest.mark.parametrize("entry", ["t", "epoch", "p0/t", "p1/n", "p2/delta"])
def test_a_strange_value_in_a_dictionary_is_refused_by_name(entry, value):
    """Only arrays and NumPy's scalars are entries."""
    entries = {**entries_of(train(fresh(), 1)), entry: value}
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises((KeyError, ValueError), match=f"{entry}: "):
        optimizer.serialize(NpzDeserializer(entries))
    assert everything_of(optimizer) == before


# Models


@NPZ_LOADERS
def test_ours_refuses_a_model_of_another_shape_before_anything_is_written(tmp_path, load):
    """Chainer's loader broadcasts the entry, or fails after it has written some parameters."""
    path = str(tmp_path / "model.npz")
    save_npz(path, model_of(seed=1, shapes=((2, 3), (1,), ())))
    model = model_of(seed=5)
    before = [param.array.tobytes() for param in model.params()]
    if load is rmsprop_graves.load_npz:
        with pytest.raises(ValueError, match=r"model\.npz: /?p1: found shape \(1,\), expected \(4,\)"):
            load(path, model)
        assert [param.array.tobytes() for param in model.params()] == before
    else:
        load(path, model)
        assert [param.array.tobytes() for param in model.params()] != before


@pytest.mark.parametrize("suffix", ["npz", pytest.param("h5", marks=needs_h5py)])
def test_a_model_says_what_other_file_it_was_given(tmp_path, suffix):
    """The file is an optimizer's file, or a trainer's snapshot that contains the model."""
    save = {"npz": save_npz, "h5": chainer.serializers.save_hdf5}[suffix]
    load = {"npz": rmsprop_graves.load_npz, "h5": rmsprop_graves.load_hdf5}[suffix]
    optimizer = train(fresh(), 1)
    path = str(tmp_path / f"file.{suffix}")
    save(path, optimizer)
    with pytest.raises((KeyError, ValueError), match=rf"file\.{suffix}: p\d: .*; this is an optimizer's file"):
        load(path, model_of())
    save(path, chainer.Chain(updater=chainer.Chain(**{"model:main": model_of(seed=1)})))
    model = model_of()
    with pytest.raises(KeyError, match=r"snapshot: load its model by .* with path='updater/model:main/'"):
        load(path, model)
    load(path, model, path="updater/model:main/")
    assert model.p0.array.tobytes() == model_of(seed=1).p0.array.tobytes()


@NPZ_LOADERS
@pytest.mark.parametrize("shape", ["(" * 9000, "[" * 5000 + "1" + "]" * 4000, "-" * 9000 + "1", "(1," * 300])
def test_a_header_that_is_nested_deeply_is_damage(tmp_path, load, shape):
    """Python's parser can raise a MemoryError for it, although there is enough memory."""
    write_members(tmp_path / "file", {"p0/n.npy": header_of(shape)})
    optimizer = fresh()
    assert_refused(lambda: load(tmp_path / "file", optimizer), optimizer, "p0/n")


@pytest.mark.parametrize(
    ("load", "write"),
    [
        (rmsprop_graves.load_npz, write_npz),
        pytest.param(rmsprop_graves.load_hdf5, write_hdf5, marks=needs_h5py),
    ],
)
@pytest.mark.parametrize("dtype", ["c8", "S80"])
@pytest.mark.parametrize("which", ["p0", "p1"])
def test_a_model_of_another_dtype_is_refused_before_anything_is_written(tmp_path, load, write, dtype, which):
    """This holds for the first parameter and for a later one. Dtypes that can become the parameter's are accepted."""
    model = model_of(shapes=((2, 3), (4,)))
    before = snapshot_of_params(model)
    good = {"p0": numpy.ones((2, 3), "f8"), "p1": numpy.ones(4, "i8")}
    write(tmp_path / "file", {**good, which: numpy.zeros(good[which].shape, dtype)})
    path = next(tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"{which}: found dtype .*, expected one that can become float32"):
        load(path, model)
    assert snapshot_of_params(model) == before
    write(tmp_path / "good", good)
    load(next(tmp_path.glob("good*")), model)
    assert {param.array.sum() for param in model.params()} == {6.0, 4.0}


def snapshot_of_params(model):
    return {path: param.array.tobytes() for path, param in model.namedparams()}


def test_a_model_of_wide_elements_is_refused_in_little_memory(tmp_path):
    """A small file unpacks to half a gigabyte of byte strings, which are not numbers."""
    rest = [bytes(10**7)] * 48
    write_members(tmp_path / "file", {"p0.npy": [header_of((2, 3), "|S80000000"), *rest]}, zipfile.ZIP_DEFLATED)
    model = model_of(shapes=((2, 3),))

    def attempt():
        with pytest.raises(ValueError, match="p0: found dtype "):
            rmsprop_graves.load_npz(tmp_path / "file", model)

    assert peak_of(attempt) < MOST_BYTES


@needs_h5py
@pytest.mark.parametrize("load", [chainer.serializers.load_hdf5, rmsprop_graves.load_hdf5], ids=["Chainer's", "ours"])
def test_a_small_hdf5_array_in_a_large_chunk_is_refused(tmp_path, load):
    """To read any element, hdf5 unpacks its whole chunk, which may take a gigabyte."""
    entries = entries_of(train(fresh(), 1))
    write_hdf5(tmp_path / "file", entries)
    with h5py.File(tmp_path / "file", "a") as file:
        shape = file["p0/n"].shape
        del file["p0/n"]
        options = {"chunks": (2**12, 2**12), "maxshape": (None, None), "compression": "gzip"}
        file.create_dataset("p0/n", shape, "f4", **options)[...] = 1
    optimizer = fresh()
    assert_refused(lambda: load(str(tmp_path / "file"), optimizer), optimizer, "p0/n: .* chunks of 67108864 bytes")

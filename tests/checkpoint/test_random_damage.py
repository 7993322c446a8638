"""A checkpoint with random damage loads as saved, or is refused and changes nothing."""

from __future__ import annotations

import random
import re

import numpy
import pytest
from chainer.serializers import save_hdf5, save_npz
from checkpoint.training import everything_of, model_of, states_of, train
from file_formats import needs_h5py

import rmsprop_graves
from rmsprop_graves import RMSpropGraves

FORMATS = {
    "npz": (lambda path, obj: save_npz(path, obj), rmsprop_graves.load_npz),
    "stored npz": (lambda path, obj: save_npz(path, obj, compression=False), rmsprop_graves.load_npz),
    "hdf5": (save_hdf5, rmsprop_graves.load_hdf5),
}


def make(seed):
    """Make a trained optimizer whose arrays are large enough to be compressed."""
    return train(RMSpropGraves().setup(model_of(shapes=((20, 30), (400,), ()))), seed)


def damaged(content, rng):
    """Flip, overwrite, remove or repeat bytes, often near the signatures of a zip archive or of an array."""
    content = bytearray(content)
    signatures = [match.start() for match in re.finditer(b"PK|NUMPY|TREE|SNOD|HEAP", content)]
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(content))
        if signatures and rng.random() < 0.5:
            place = min(rng.choice(signatures) + rng.randrange(60), len(content) - 1)
        length = rng.choice([1, 2, 8, 100])
        change = rng.randrange(6)
        if change < 2:
            content[place] ^= 1 << rng.randrange(8)
        elif change == 2:
            content[place : place + 8] = rng.choice([b"\xff" * 8, bytes(8), (2**40).to_bytes(8, "little")])
        elif change == 3 and len(content) > 200:
            del content[place : place + length]
        elif change == 4:
            content[place:place] = content[place : place + length]
        elif rng.random() < 0.2:
            del content[max(place, 1) :]
    return bytes(content)


def error_of(load, path, optimizer):
    """Return the documented error of loading a file, or None."""
    try:
        load(path, optimizer)
    except (KeyError, ValueError) as error:
        return error
    return None


@pytest.mark.parametrize(
    "seeds", [range(100), pytest.param(range(100, 5000), marks=pytest.mark.search)], ids=["", "long"]
)
@pytest.mark.parametrize("name", ["npz", "stored npz", pytest.param("hdf5", marks=needs_h5py)])
def test_a_randomly_damaged_file_loads_as_saved_or_is_refused(tmp_path, name, seeds):
    """hdf5 has checksums for compressed arrays only, so a count or an array of one element can load changed."""
    save, load = FORMATS[name]
    saved, path = make(1), tmp_path / "checkpoint"
    with path.open("wb") as file:
        save(file if load is rmsprop_graves.load_npz else str(path), saved)
    whole = path.read_bytes()
    optimizer = make(2)
    before, refused = everything_of(optimizer), 0
    for seed in seeds:
        path.write_bytes(damaged(whole, random.Random(seed)))
        error = error_of(load, str(path), optimizer)
        if error is not None:
            assert type(error) in (KeyError, ValueError)
            assert "checkpoint: " in str(error)
            assert everything_of(optimizer) == before, f"seed {seed}"
            refused += 1
        else:
            same = {
                entry: numpy.array_equal(array, states_of(saved)[entry])
                for entry, array in states_of(optimizer).items()
                if load is rmsprop_graves.load_npz or array.size > 1
            }
            assert all(same.values()), f"seed {seed}: {same}"
            optimizer = make(2)
            before = everything_of(optimizer)
    assert refused > len(seeds) / 4

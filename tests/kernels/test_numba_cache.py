"""The compiled update works even if its cache on disk is damaged, missing or cannot be written."""

from __future__ import annotations

import errno
import random
import shutil

import pytest
from interpreter import run_python
from skips import not_installed

pytest.importorskip("numba", exc_type=ImportError, reason=not_installed("numba"))

UPDATES = """
import numpy, warnings
warnings.simplefilter("always")
from rmsprop_graves import kernels
kernel = kernels.on_cpu()
for dtype in "fd":
    arrays = [numpy.cos(numpy.arange(1001, dtype=dtype) * k) for k in range(1, 6)]
    table = kernel.Table(*([array.copy()] for array in arrays[:1] + arrays[2:]))
    for _ in range(2):
        kernel.step(*arrays, lr=0.1, alpha=0.9, momentum=0.5, eps=1e-3)
        print(*(array.tobytes().hex() for array in arrays))
print(kernel.__name__)
"""

FULL_DISK = f"""
import builtins, os
def refuse(*args, **kwds):
    raise OSError({errno.ENOSPC}, "No space left on device")
class Full:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()
    def __getattr__(self, name): return getattr(self.file, name)
    write = refuse
opened = builtins.open
def open_full(file, mode="r", *args, **kwds):
    stream = opened(file, mode, *args, **kwds)
    return Full(stream) if "w" in mode and "numba" in str(file) + os.environ["NUMBA_CACHE_DIR"] else stream
builtins.open = open_full
"""

REFUSED = """
import builtins, errno, os
opened, replace = builtins.open, os.replace
def open_unless_refused(file, mode="r", *args, **kwds):
    if str(file).endswith("{ending}") and "{mode}" in mode:
        raise OSError(errno.{error}, os.strerror(errno.{error}), str(file))
    return opened(file, mode, *args, **kwds)
def replace_unless_refused(old, new):
    if str(new).endswith("{ending}") and "{mode}" == "w":
        raise OSError(errno.{error}, os.strerror(errno.{error}), str(new))
    return replace(old, new)
builtins.open, os.replace = open_unless_refused, replace_unless_refused
"""

VANISHES = """
import os, shutil
from rmsprop_graves.kernels import numba
shutil.rmtree(os.environ["NUMBA_CACHE_DIR"])
"""


def flip_a_bit(path, place=0.5):
    """Flip a bit of a file. Machine code with a flipped bit may still run, and crash or compute other numbers."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 16
    path.write_bytes(data)


DAMAGES = {
    "a bit": flip_a_bit,
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(path.read_bytes()[:1]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "all but one byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("cos\nsystem\n"),
    "another pickle": lambda path: path.write_bytes(b"(dp0\n."),
    "a class that is not there": lambda path: path.write_bytes(b"cno_such_module\nName\n."),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a folder with a file": lambda path: (path.unlink(), path.mkdir(), (path / "x").write_text("")),
    "a loop of links": lambda path: (path.unlink(), path.symlink_to(path)),
    "missing": lambda path: path.unlink(),
}


def run_updates(cache, before=""):
    """Run the updates; return the bits with the kernel's name, and the warnings."""
    return run_python(before + UPDATES, NUMBA_CACHE_DIR=str(cache))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of an undamaged cache, and the output of the updates."""
    folder = tmp_path_factory.mktemp("whole")
    printed, warned = run_updates(folder)
    assert printed.endswith("\nrmsprop_graves.kernels.numba\n")
    assert "RuntimeWarning" not in warned
    return folder, printed


def files_of(folder):
    """Return the files of a cache, relative to its folder."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*.nb?"))


def assert_goes_on(folder, printed, before=""):
    """Assert the bits of the compiled kernel, and at most one warning, which has the folder and what to do."""
    found, warned = run_updates(folder, before)
    assert found == printed
    assert warned.count("RuntimeWarning") <= 1, warned
    if "RuntimeWarning" in warned:
        assert str(folder) in warned
        assert "compiled anew in each process" in warned
        assert "NUMBA_CACHE_DIR" in warned
    return warned


def damaged(whole, folder, damages):
    """Copy the cache, damage files of the copy, and return its folder."""
    shutil.copytree(whole, folder)
    for path, damage in damages:
        DAMAGES[damage](folder / path)
    return folder


@pytest.mark.parametrize(
    ("ending", "damage"),
    [("nbi", "half"), ("nbc", "garbage"), ("nbc", "a folder with a file"), ("nbc", "a bit")],
    ids=str,
)
def test_a_damaged_cache_costs_a_warning(whole, tmp_path, ending, damage):
    """All files of a kind are damaged."""
    folder, printed = whole
    damages = [(path, damage) for path in files_of(folder) if path.suffix == f".{ending}"]
    assert damages
    assert "RuntimeWarning" in assert_goes_on(damaged(folder, tmp_path / "cache", damages), printed)


def test_a_full_disk_costs_a_warning(whole, tmp_path):
    """Nothing can be written."""
    assert "No space left on device" in assert_goes_on(tmp_path, whole[1], FULL_DISK)


def test_the_cache_of_other_code_is_replaced(whole, tmp_path):
    """Numba itself compares versions and the time of the source."""
    folder, printed = whole
    copied = damaged(folder, tmp_path / "cache", [])
    for path in copied.rglob("*.nbi"):
        path.write_bytes(path.read_bytes().replace(b"0.", b"9.", 1))
    assert_goes_on(copied, printed)


@pytest.mark.search
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_every_file(whole, tmp_path, damage):
    """Each file is damaged alone, in every way."""
    folder, printed = whole
    for number, path in enumerate(files_of(folder)):
        assert_goes_on(damaged(folder, tmp_path / str(number), [(path, damage)]), printed)


@pytest.mark.search
@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits(whole, tmp_path, seed):
    """Each of some files has a flipped bit."""
    folder, printed = whole
    copied, rng = damaged(folder, tmp_path / "cache", []), random.Random(seed)
    for path in files_of(copied):
        if rng.random() < 0.3:
            flip_a_bit(copied / path, rng.random())
    assert_goes_on(copied, printed)


@pytest.mark.search
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("mode", ["r", "w"])
@pytest.mark.parametrize("error", ["EACCES", "EROFS", "EIO", "ENOENT", "ENOSPC", "EMFILE", "ESTALE"])
def test_every_error_of_the_system(whole, tmp_path, ending, mode, error):
    """Reading a cache fails, or writing to an empty one."""
    folder, printed = whole
    cache = damaged(folder, tmp_path / "cache", []) if mode == "r" else tmp_path
    assert_goes_on(cache, printed, REFUSED.format(ending=ending, mode=mode, error=error))


@pytest.mark.search
def test_a_cache_that_vanishes_is_not_missed(whole, tmp_path):
    """Nothing is compiled after the import."""
    folder, printed = whole
    assert "RuntimeWarning" not in assert_goes_on(damaged(folder, tmp_path / "cache", []), printed, VANISHES)


@pytest.mark.search
def test_a_file_in_place_of_the_folder_costs_a_warning(whole, tmp_path):
    """Numba then looks for another folder, or has none."""
    path = tmp_path / "cache"
    path.write_text("")
    found, warned = run_updates(path)
    assert found == whole[1]
    assert warned.count("RuntimeWarning") <= 1

"""Advice for old programs: the replacement for a name or habit that raises an exception today.

``ADVICE`` is data. The launcher prints one line of it after a program's traceback, and ``docs/old_scripts.py`` writes
it into the documentation as a table. Wrong advice is worse than none, so each entry matches as narrowly as possible.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import pickle
import re
import sys
import traceback
from types import FrameType
from typing import Any, NamedTuple, Tuple, Type, Union

_Errors = Union[Type[BaseException], Tuple[Type[BaseException], ...]]


class Advice(NamedTuple):
    """One old name or habit, the exception that it raises today, and the replacement."""

    old: str  # the name or habit, in Markdown
    since: str  # the first version that raises the exception; "" if every version does
    instead: str  # the instruction to the user, in Markdown
    error: _Errors  # the type of the exception
    message: str  # a regular expression, matched from the start of the message; the cause's message is the second line
    by: str = ""  # the package whose code raises the exception
    code: str = ""  # a regular expression to be found in the failing line of the program
    of: str = ""  # the package that defines the called function, or the class that lacks the attribute
    through: str = ""  # a module that has to be in the traceback
    name: str = ""  # the dotted name that was removed from a module
    alias: str = ""  # the object that a program may assign to this name


def _removed(module: str, since: str, names: dict[str, str]) -> list[Advice]:
    """Advice for names that were removed from a module. `names` has a replacement or an instruction for each."""
    return [_removed_name(module, since, name, new) for name, new in names.items()]


def _removed_name(module: str, since: str, name: str, new: str) -> Advice:
    of_module, this = re.escape(module), re.escape(name)
    return Advice(
        f"`{module}.{name}`",
        since,
        f"write {new}" if new.startswith("`") else new,
        (AttributeError, ImportError),
        rf"[mM]odule '{of_module}' has no attribute '{this}'|cannot import name '{this}' from '{of_module}'"
        rf"|`np\.{this}` was removed in the NumPy 2\.0 release"
        rf"|{of_module} is deprecated and has no attribute {this}\.",
        name=f"{module}.{name}",
        alias=new.strip("`") if re.fullmatch(r"`[\w.]+`", new) else "",
    )


def _missing(since: str, modules: dict[str, str]) -> list[Advice]:
    """Advice for modules that no longer exist. `modules` has an instruction for each."""
    return [
        Advice(f"`import {name}`", since, new, ModuleNotFoundError, rf"No module named '{re.escape(name)}'$")
        for name, new in modules.items()
    ]


def _argument(function: str, name: str, since: str, instead: str, of: str) -> Advice:
    """Advice for a keyword argument that a package's function no longer takes."""
    return Advice(
        f"`{name}=` of {function}",
        since,
        instead,
        (TypeError, AttributeError),
        rf"[\w.]+\(\) got (an )?unexpected keyword argument(\(s\))? '{name}'",
        of=of,
    )


def _method(kind: str, name: str, since: str, instead: str, of: str) -> Advice:
    """Advice for a method or attribute that a package's objects no longer have."""
    old = f"`{kind}.{name}`" if kind.islower() else f"`{name}` of {kind}"
    message = rf"'[\w.]+' object has no attribute '{name}'|`{name}` was removed from the ndarray class in NumPy 2\.0"
    return Advice(old, since, instead, AttributeError, message, of=of)


def _option(name: str, function: str, instead: str) -> Advice:
    """Advice for a keyword argument of Chainer 1 for which Chainer's message recommends `chainer.using_config`."""
    return Advice(
        f"`{name}=` of {function}",
        "Chainer 2",
        instead,
        ValueError,
        rf"{name} argument is not supported anymore\. Use chainer\.using_config",
        by="chainer",
    )


_TRAIN = "put the call under `with chainer.using_config('train', False):`; `True` is for training"
_VOLATILE = "put the calls under `with chainer.no_backprop_mode():`"
_USE_CUDNN = "remove it, or put the call under `with chainer.using_config('use_cudnn', 'never'):`"

ADVICE: tuple[Advice, ...] = (
    # NumPy.
    Advice(
        "`float(a)` and `int(a)` of an array of shape `(1,)` or `(1, 1)`",
        "NumPy 2.4",
        "write `a.item()`",
        TypeError,
        "only 0-dimensional arrays can be converted to Python scalars",
    ),
    Advice(
        "`a[i] = b` with an array `b` of shape `(1,)` or `(1, 1)`",
        "NumPy 2.4",
        "write `a[i] = b.item()`",
        ValueError,
        r"setting an array element with a sequence\.\nonly 0-dimensional arrays can be converted",
    ),
    Advice(
        "`'%d' % a` of an array of shape `(1,)` or `(1, 1)`",
        "NumPy 2.4",
        "write `'%d' % a.item()`",
        TypeError,
        r"%[a-z] format: a real number is required, not numpy\.ndarray"
        r"|format argument: %[a-z] requires a real number, not numpy\.ndarray",
    ),
    Advice(
        "`numpy.random.permutation(rows)` of rows of several lengths",
        "NumPy 1.24",
        "write `[rows[i] for i in numpy.random.permutation(len(rows))]`, which has the same order",
        ValueError,
        r"setting an array element with a sequence\. The requested array has an inhomogeneous shape",
        by="numpy",
        code=r"\.permutation\(",
    ),
    Advice(
        "`numpy.array` of rows of several lengths",
        "NumPy 1.24",
        "write `numpy.array(rows, dtype=object)`",
        ValueError,
        r"setting an array element with a sequence\. The requested array has an inhomogeneous shape",
    ),
    Advice(
        "an integer outside the range of an array's dtype",
        "NumPy 2.0",
        "write `numpy.asarray(value).astype(dtype)`, which wraps around as NumPy 1 did",
        OverflowError,
        r"Python integer -?\d+ out of bounds for u?int\d+",
    ),
    Advice(
        "`numpy.array(a, copy=False)` where a copy is needed",
        "NumPy 2.0",
        "write `numpy.asarray(a)`",
        ValueError,
        "Unable to avoid copy while creating an array as requested",
    ),
    *_removed(
        "numpy",
        "NumPy 1.24",
        {name: f"`{name}`" for name in ("float", "int", "bool", "object", "str", "complex")},
    ),
    *_removed("numpy", "NumPy 1.24", {"long": "`int`", "unicode": "`str`"}),
    *_removed("numpy", "NumPy 1.23", {"asscalar": "`a.item()` in place of `numpy.asscalar(a)`"}),
    *_removed("numpy", "NumPy 2.0", dict.fromkeys(("Inf", "Infinity", "infty", "PINF"), "`numpy.inf`")),
    *_removed("numpy", "NumPy 2.0", {"NINF": "`-numpy.inf`"}),
    *_removed("numpy", "NumPy 2.0", dict.fromkeys(("NaN", "NAN"), "`numpy.nan`")),
    *_removed(
        "numpy",
        "NumPy 2.0",
        {
            "float_": "`numpy.float64`",
            "complex_": "`numpy.complex128`",
            "string_": "`numpy.bytes_`",
            "unicode_": "`numpy.str_`",
        },
    ),
    *_removed("numpy", "NumPy 2.0", {"bool8": "`numpy.bool_`", "int0": "`numpy.intp`", "object0": "`numpy.object_`"}),
    *_removed(
        "numpy",
        "NumPy 2.0",
        {
            "product": "`numpy.prod`",
            "cumproduct": "`numpy.cumprod`",
            "alltrue": "`numpy.all`",
            "sometrue": "`numpy.any`",
            "round_": "`numpy.round`",
        },
    ),
    *_removed("numpy", "NumPy 2.0", {"mat": "`numpy.asmatrix`", "issubsctype": "`numpy.issubdtype`"}),
    *_removed(
        "numpy",
        "NumPy 2.0",
        {
            "asfarray": "`numpy.asarray(a, dtype=float)`",
            "cast": "`numpy.asarray(a, dtype=dtype)`",
            "msort": "`numpy.sort(a, axis=0)`",
            "find_common_type": "`numpy.result_type(*types)`",
            "sctypes": "list the dtypes, such as `[numpy.float32, numpy.float64]`",
        },
    ),
    *_removed("numpy", "NumPy 2.4", {"in1d": "`numpy.isin`", "trapz": "`numpy.trapezoid`"}),
    *_removed("numpy", "NumPy 2.5", {"row_stack": "`numpy.vstack`"}),
    _method("array", "itemset", "NumPy 2.0", "write `array[i] = value`", "numpy"),
    _method("array", "newbyteorder", "NumPy 2.0", "write `array.view(array.dtype.newbyteorder())`", "numpy"),
    _method("array", "ptp", "NumPy 2.0", "write `numpy.ptp(array)`", "numpy"),
    _method("array", "tostring", "NumPy 2.3", "write `array.tobytes()`", "numpy"),
    Advice(
        "`numpy.fromstring` of bytes",
        "NumPy 2.3",
        "write `numpy.frombuffer`",
        ValueError,
        "The binary mode of fromstring is removed",
    ),
    Advice(
        "`numpy.vstack` and the like of a generator or `map`",
        "NumPy 1.25",
        "write `numpy.vstack(list(arrays))`",
        TypeError,
        'arrays to stack must be passed as a "sequence" type such as list or tuple',
        by="numpy",
    ),
    Advice(
        "`numpy.load` of an array of objects",
        "NumPy 1.16",
        "write `numpy.load(file, allow_pickle=True)` if you trust the file, which can run any code",
        ValueError,
        "Object arrays cannot be loaded when allow_pickle=False",
        by="numpy",
    ),
    # Chainer 1.
    _method("optimizer", "zero_grads", "Chainer 2", "write `model.cleargrads()`", "chainer"),
    _method("model", "collect_parameters", "Chainer 2", "write `optimizer.setup(model)`", "chainer"),
    _method(
        "optimizer",
        "weight_decay",
        "Chainer 2",
        "write `optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(rate))` after `setup`",
        "chainer",
    ),
    _method(
        "optimizer",
        "clip_grads",
        "Chainer 2",
        "write `optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(norm))` after `setup`",
        "chainer",
    ),
    *_removed("chainer", "Chainer 2", {"FunctionSet": "`chainer.Chain`"}),
    *_removed(
        "chainer.functions",
        "Chainer 2",
        {
            name: f"`chainer.links.{name}`"
            for name in (
                "Linear",
                "Convolution2D",
                "Deconvolution2D",
                "EmbedID",
                "BatchNormalization",
                "Bilinear",
                "PReLU",
                "Inception",
                "InceptionBN",
                "MLPConvolution2D",
                "NegativeSampling",
                "BinaryHierarchicalSoftmax",
                "Parameter",
            )
        },
    ),
    Advice(
        "`chainer.functions.caffe`",
        "Chainer 2",
        "write `chainer.links.caffe`",
        ImportError,
        r"No module named 'chainer\.functions\.caffe'|cannot import name 'caffe' from 'chainer\.functions'",
    ),
    _argument(
        "a link",
        "wscale",
        "Chainer 2",
        "write `initialW=chainer.initializers.LeCunNormal(scale)`",
        "chainer",
    ),
    Advice(
        "`wscale=` of `chainer.links.MLPConvolution2D`",
        "Chainer 2",
        "write `conv_init=chainer.initializers.LeCunNormal(scale)`",
        ValueError,
        "wscale is not supported anymore. Use conv_init",
        by="chainer",
    ),
    _argument("a link", "bias", "Chainer 2", "write `initial_bias=`", "chainer"),
    _option("train", "a function, such as `F.dropout`", _TRAIN),
    _option("test", "a link, such as `L.BatchNormalization`", _TRAIN),
    Advice(
        "a third argument of `F.dropout`",
        "Chainer 2",
        _TRAIN,
        TypeError,
        r"dropout\(\) takes from 1 to 2 positional arguments but 3 were given",
        of="chainer",
    ),
    _option("volatile", "a `Variable`", _VOLATILE),
    _method("variable", "volatile", "Chainer 2", _VOLATILE, "chainer"),
    _argument("a function or a link", "use_cudnn", "Chainer 2", _USE_CUDNN, "chainer"),
    _option("use_cudnn", "an N-step link", _USE_CUDNN),
    _option(
        "deterministic",
        "a convolution",
        "put the call under `with chainer.using_config('cudnn_deterministic', True):`",
    ),
    _argument(
        "`extensions.snapshot` and other extensions",
        "trigger",
        "Chainer 2",
        "pass it to `trainer.extend(extension, trigger=trigger)`",
        "chainer",
    ),
    Advice(
        "`chainer.cuda.init()`",
        "Chainer 2",
        "remove the call: CuPy initializes itself",
        AttributeError,
        r"module 'chainer\.backends\.cuda' has no attribute 'init'",
    ),
    Advice(
        "`model.to_intel64()` without iDeep",
        "",
        "remove the call: iDeep has no release for today's Python",
        RuntimeError,
        "iDeep is not available",
        by="chainer",
    ),
    Advice(
        "downloading MNIST",
        "",
        "put `train.npz` and `test.npz`, with the images as `x` and the labels as `y`, into "
        "`$CHAINER_DATASET_ROOT/pfnet/chainer/mnist`",
        OSError,
        "",
        through="chainer.datasets.mnist",
    ),
    # Python.
    Advice(
        "sending a local function or a lambda to a process that is not forked",
        "",
        "define it at the top of its module, or start with `multiprocessing.set_start_method('fork')`",
        (AttributeError, pickle.PicklingError),
        r"Can't (get|pickle) local object",
        through="multiprocessing.reduction",
    ),
    *_removed("time", "Python 3.8", {"clock": "`time.perf_counter`"}),
    *_removed("fractions", "Python 3.9", {"gcd": "`math.gcd`"}),
    *_removed(
        "collections",
        "Python 3.10",
        {
            name: f"`collections.abc.{name}`"
            for name in ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence", "Hashable")
        },
    ),
    *_removed(
        "inspect",
        "Python 3.11",
        {"getargspec": "`inspect.getfullargspec`, whose result has `varkw` in place of `keywords`"},
    ),
    *_removed("asyncio", "Python 3.11", {"coroutine": "`async def`"}),
    *_removed(
        "base64", "Python 3.9", {"encodestring": "`base64.encodebytes`", "decodestring": "`base64.decodebytes`"}
    ),
    _method("thread", "isAlive", "Python 3.9", "write `thread.is_alive()`", "threading"),
    Advice(
        "`hmac.new` without `digestmod`",
        "Python 3.8",
        "write `hmac.new(key, message, 'md5')`, which was the default",
        TypeError,
        "Missing required (parameter|argument) 'digestmod'",
    ),
    Advice(
        "`random.sample` of a set",
        "Python 3.11",
        "write `random.sample(sorted(population), k)`",
        TypeError,
        r"Population must be a sequence\.  For dicts or sets, use sorted",
    ),
    Advice(
        "`random.shuffle` with two arguments",
        "Python 3.11",
        "write `random.shuffle(list)`",
        TypeError,
        r"Random\.shuffle\(\) takes 2 positional arguments but 3 were given",
    ),
    *_missing("Python 3.12", {"imp": "write `importlib`"}),
    *_missing("Python 3.12", {"distutils": "install setuptools, which has a copy, or write `packaging.version`"}),
    *_missing("setuptools 82", {"pkg_resources": "write `importlib.metadata`, or install `setuptools<82`"}),
    *_missing("Python 3.13", {"cgi": "write `html.escape` and `urllib.parse`", "pipes": "write `shlex.quote`"}),
    *_missing("Python 3.13", {"imghdr": "write `PIL.Image.open(file).format`"}),
    *_missing(
        "Python 3.0", {"cPickle": "write `pickle`", "Queue": "write `queue`", "StringIO": "write `io.StringIO`"}
    ),
    *_missing("Python 3.0", {"urllib2": "write `urllib.request`", "urlparse": "write `urllib.parse`"}),
    *_missing("Python 3.0", {"ConfigParser": "write `configparser`"}),
    *_removed("urllib", "Python 3.0", {name: f"`urllib.request.{name}`" for name in ("urlopen", "urlretrieve")}),
    *_removed("itertools", "Python 3.0", {"izip": "`zip`", "imap": "`map`", "ifilter": "`filter`"}),
    *_removed("sys", "Python 3.0", {"maxint": "`sys.maxsize`"}),
    *(
        Advice(f"`{old}`", "Python 3.0", f"write `{new}`", NameError, f"name '{old}' is not defined")
        for old, new in {
            "xrange": "range",
            "raw_input": "input",
            "basestring": "str",
            "unicode": "str",
            "unichr": "chr",
            "reduce": "functools.reduce",
        }.items()
    ),
    *(
        Advice(
            f"`{name}` of a dict",
            "Python 3.0",
            f"write `{new}`",
            AttributeError,
            rf"'(dict|collections\.\w+)' object has no attribute '{name}'",
        )
        for name, new in {
            "iteritems": "items",
            "itervalues": "values",
            "iterkeys": "keys",
            "has_key": "key in dict",
        }.items()
    ),
    Advice(
        "an index or a length of `zip`, `map`, `filter`, `dict.keys()`, `dict.values()` or `dict.items()`",
        "Python 3.0",
        "put `list()` around it",
        TypeError,
        r"'(zip|map|filter|dict_keys|dict_values|dict_items)' object is not subscriptable"
        r"|object of type '(zip|map|filter)' has no len",
    ),
    Advice(
        "`next` of an iterator",
        "Python 3.0",
        "write `next(iterator)`",
        AttributeError,
        r"'(generator|\w+_iterator|zip|map|enumerate|csv\.reader|_csv\.reader)' object has no attribute 'next'",
    ),
    Advice(
        "`range(n / 2)` and the like: `/` of integers is a float",
        "Python 3.0",
        "write `//`",
        TypeError,
        r"'float' object cannot be interpreted as an integer"
        r"|expected a sequence of integers or a single integer, got '[\d.]+'",
        code=r"[\w)\]] ?/ ?\w",
    ),
    Advice(
        "`pickle.load` of a file that Python 2 wrote",
        "Python 3.0",
        "write `pickle.load(file, encoding='latin1')`",
        UnicodeDecodeError,
        "'ascii' codec can't decode byte",
        code=r"\bpickle\.loads?\(",
    ),
    Advice(
        "`pickle` with a file that was opened as text",
        "Python 3.0",
        "open it with `'rb'` or `'wb'`",
        (TypeError, UnicodeDecodeError),
        r"write\(\) argument must be str, not bytes|'utf-8' codec can't decode byte 0x80 in position 0",
        code=r"\bpickle\.(load|dump)\(",
    ),
    # Other libraries.
    *_removed(
        "scipy.misc",
        "SciPy 1.3",
        {
            "imread": "`numpy.asarray(PIL.Image.open(file))`",
            "imsave": "`PIL.Image.fromarray(array).save(file)`",
            "toimage": "`PIL.Image.fromarray(array)`",
            "imresize": "`numpy.asarray(PIL.Image.fromarray(array).resize((width, height)))`",
        },
    ),
    *_removed("scipy.misc", "SciPy 1.3", {"logsumexp": "`scipy.special.logsumexp`", "comb": "`scipy.special.comb`"}),
    *_removed("scipy", "SciPy 1.12", {name: f"`numpy.{name}`" for name in ("array", "zeros", "ones", "interp")}),
    *_removed(
        "scipy.signal",
        "SciPy 1.13",
        {name: f"`scipy.signal.windows.{name}`" for name in ("gaussian", "hamming", "hann")},
    ),
    *_removed(
        "scipy.integrate",
        "SciPy 1.14",
        {
            "trapz": "`scipy.integrate.trapezoid`",
            "cumtrapz": "`scipy.integrate.cumulative_trapezoid`",
            "simps": "`scipy.integrate.simpson`",
        },
    ),
    _argument("`matplotlib.use`", "warn", "Matplotlib 3.3", "remove it", "matplotlib"),
    Advice(
        "`normed=` of `pyplot.hist`",
        "Matplotlib 3.1",
        "write `density=`",
        AttributeError,
        r"Rectangle\.set\(\) got an unexpected keyword argument 'normed'|Unknown property normed"
        r"|'Rectangle' object has no property 'normed'",
        by="matplotlib",
    ),
    Advice(
        "`pyplot.style.use('seaborn')`",
        "Matplotlib 3.8",
        "write `seaborn-v0_8` for `seaborn`",
        OSError,
        "'seaborn(-[a-z]+)?' is not a valid package style",
        by="matplotlib",
    ),
    Advice(
        "`gca(projection='3d')`",
        "Matplotlib 3.6",
        "write `pyplot.figure().add_subplot(projection='3d')`",
        TypeError,
        r"(FigureBase\.)?gca\(\) got an unexpected keyword argument 'projection'",
        of="matplotlib",
    ),
    *_removed("matplotlib.cm", "Matplotlib 3.11", {"get_cmap": "`matplotlib.pyplot.get_cmap`"}),
    _method(
        "canvas",
        "set_window_title",
        "Matplotlib 3.6",
        "write `canvas.manager.set_window_title(title)`",
        "matplotlib",
    ),
    _method(
        "canvas",
        "tostring_rgb",
        "Matplotlib 3.10",
        "write `numpy.asarray(canvas.buffer_rgba())[..., :3]`",
        "matplotlib",
    ),
    *_removed(
        "PIL.Image",
        "Pillow 10",
        {
            "ANTIALIAS": "`PIL.Image.LANCZOS`",
            "LINEAR": "`PIL.Image.BILINEAR`",
            "CUBIC": "`PIL.Image.BICUBIC`",
        },
    ),
    _method("font", "getsize", "Pillow 10", "write `font.getbbox(text)`", "PIL"),
    _method("draw", "textsize", "Pillow 10", "write `draw.textbbox((0, 0), text)`", "PIL"),
    Advice(
        "`sklearn.externals.joblib`",
        "scikit-learn 0.23",
        "write `import joblib`",
        ImportError,
        r"cannot import name 'joblib' from 'sklearn\.externals'|No module named 'sklearn\.externals\.joblib'",
    ),
    *_missing(
        "scikit-learn 0.20",
        dict.fromkeys(("sklearn.cross_validation", "sklearn.grid_search"), "write `sklearn.model_selection`"),
    ),
    Advice(
        "`sklearn.datasets.fetch_mldata`",
        "scikit-learn 0.22",
        "write `fetch_openml('mnist_784', as_frame=False)` for `fetch_mldata('MNIST original')`",
        ImportError,
        r"cannot import name 'fetch_mldata' from 'sklearn\.datasets'",
    ),
    *_missing("", {"gym": "for ChainerRL, install an old Gym with `pip install --no-deps gym==0.17.3 cloudpickle`"}),
)


def print_for(error: BaseException) -> None:
    """Prints the advice for the exception that ended a program, if there is any."""
    line = None
    # Reading attributes of the program's objects may raise anything, which must not replace the program's own error.
    with contextlib.suppress(Exception):
        line = find(error)
    if line:
        print(f"rmsprop_graves: {line}", file=sys.stderr)


def find(error: BaseException) -> str | None:
    """Returns the advice for an exception as one line of plain text, or None."""
    message = f"{error}\n{error.__cause__}" if error.__cause__ else str(error)
    for advice in ADVICE:
        if isinstance(error, advice.error) and re.match(advice.message, message):
            line = _line(advice, error)
            if line:
                return line.replace("`", "")
    return None


def _line(advice: Advice, error: BaseException) -> str | None:
    problem = f"{advice.old} stopped working with {advice.since}" if advice.since else f"{advice.old} failed"
    line = f"{problem}: {advice.instead}"
    frames = list(traceback.walk_tb(error.__traceback__))
    if advice.through:
        is_through = any(frame.f_globals.get("__name__") == advice.through for frame, _ in frames)
        return line if is_through else None
    if advice.by and _package(frames[-1][0]) != advice.by:
        return None
    # The old name or habit is in the innermost frame that is not of a package that raises the exception.
    passed = ("", advice.by, advice.of, advice.name.partition(".")[0])
    frame, number, package = next(
        (frame, number, package)
        for frame, number in reversed(frames)
        for package in [_package(frame)]
        if package is None or package not in passed
    )
    code = linecache.getline(frame.f_code.co_filename, number, frame.f_globals)
    if advice.code and not re.search(advice.code, _STRING_OR_COMMENT.sub("", code)):
        return None
    if advice.of and not _is_of(advice.of, error, code, frame):
        return None
    if package is None or not advice.since:
        return line
    if not advice.name:
        return None
    change = (
        f"set {advice.name} = {advice.alias} before you import {package}"
        if advice.alias
        else "look for a newer version"
    )
    return f"{problem}, and {package} uses it: {change}"


_STRING_OR_COMMENT = re.compile(r"'[^']*'|\"[^\"]*\"|#.*")
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


def _package(frame: FrameType) -> str | None:
    """Returns the installed package of a frame's code; "" for Python's own code, None for the program's."""
    file = frame.f_code.co_filename
    if file.endswith(".pyx"):  # Cython's path, relative to the folder that it was built in
        file = frame.f_globals.get("__file__", file)
    installed = re.split(r"[/\\](?:site|dist)-packages[/\\]", file)
    if len(installed) > 1:
        return re.split(r"[/\\.]", installed[-1])[0]
    return "" if file.startswith((_STANDARD_LIBRARY, "<frozen ")) else None


def _is_of(package: str, error: BaseException, code: str, frame: FrameType) -> bool:
    """Whether a package defines the function in the exception's message, or the class that lacks the attribute."""
    if "was removed from the ndarray class" in str(error):
        return package == "numpy"
    call = re.match(r"(?:.*?(\w+)\.)?(\w+)\(\)", str(error))
    if call is None:
        attribute = str(error).rpartition("attribute '")[2].rstrip("'")
        found = getattr(error, "obj", None)  # since Python 3.10
        objects = [found] if found is not None else _objects(rf"\.{attribute}\b", code, frame)
        return any(_top(base) == package for each in objects for base in type(each).__mro__)
    kind, name = call.groups()
    if name == "__init__":
        called = [each for each in _objects(r"\s*\(", code, frame) if isinstance(each, type)]
        functions = [
            getattr(each, name) for each in called if kind in (None, *(base.__name__ for base in each.__mro__))
        ]
    else:
        functions = [each for each in _objects(r"\s*\(", code, frame) if getattr(each, "__name__", None) == name]
    return bool(functions) and all(_top(function) == package for function in functions)


def _objects(after: str, code: str, frame: FrameType) -> list[Any]:
    """Returns the objects of the dotted names in a line that are followed by the regular expression `after`."""
    objects = []
    for path in re.findall(rf"([A-Za-z_]\w*(?:\.\w+)*?){after}", code):
        first, *rest = path.split(".")
        with contextlib.suppress(Exception):
            value = frame.f_locals[first] if first in frame.f_locals else frame.f_globals[first]
            for name in rest:
                value = getattr(value, name)
            objects.append(value)
    return objects


def _top(value: Any) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]

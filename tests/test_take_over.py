"""`install_in_chainer` replaces Chainer's class, whatever a program imports first."""

from __future__ import annotations

from pathlib import Path

import pytest
from interpreter import run_python

import rmsprop_graves

PRIVATE_MODULES = sorted(path.stem for path in Path(rmsprop_graves.__file__).parent.glob("_[a-z]*.py"))
# Written by 1.0.0, which named its private modules in pickles.
OLD_PICKLE = Path(__file__).parent / "optimizer" / "pickles" / "1.0.0-float32.pickle"

FIRST_IMPORTS = {
    "Chainer": "import rmsprop_graves, chainer",
    "the optimizer": "from rmsprop_graves import RMSpropGraves",
    "the rule": "from rmsprop_graves import RMSpropGravesRule",
    "an old pickle": f"import pickle; pickle.loads(open({str(OLD_PICKLE)!r}, 'rb').read())",
    **{module: f"import rmsprop_graves.{module}" for module in PRIVATE_MODULES},
}
IS_INSTALLED = """
import chainer, pickle, sys, rmsprop_graves
from rmsprop_graves import _hyperparameter, _optimizer, _update_rule
ours = rmsprop_graves.RMSpropGraves
assert chainer.optimizers.RMSpropGraves is ours is _optimizer.RMSpropGraves
assert chainer.optimizers.rmsprop_graves.RMSpropGraves is not ours
assert type(ours().create_update_rule()) is rmsprop_graves.RMSpropGravesRule is _update_rule.RMSpropGravesRule
assert type(ours().hyperparam) is _hyperparameter.Hyperparameter
for name, module in sys.modules.items():
    if name.startswith("rmsprop_graves."):
        parent, _, child = name.rpartition(".")
        assert getattr(sys.modules[parent], child) is module, name
"""


@pytest.mark.parametrize("first", FIRST_IMPORTS)
def test_the_class_is_installed_whatever_is_imported_first(first):
    """A private module that imports Chainer is only partially initialized when Chainer's import needs the class."""
    run_python(f"import rmsprop_graves\nrmsprop_graves.install_in_chainer()\n{FIRST_IMPORTS[first]}\n{IS_INSTALLED}")


@pytest.mark.parametrize("first", ["Chainer", "the optimizer", "an old pickle"])
def test_the_class_is_installed_after_chainer_was_imported(first):
    run_python(f"{FIRST_IMPORTS[first]}\nimport rmsprop_graves\nrmsprop_graves.install_in_chainer()\n{IS_INSTALLED}")


def test_a_class_that_the_program_has_imported_before_warns():
    """Without it, the program would train with Chainer's class unnoticed. The warning names the line of the call."""
    program = """
        import rmsprop_graves
        from chainer.optimizers import RMSpropGraves as Rule
        rmsprop_graves.install_in_chainer()
        """
    _, printed = run_python(program)
    expected = (
        "<string>:4: UserWarning: Rule is still Chainer's class: call rmsprop_graves.install_in_chainer() before"
    )
    assert expected in printed


def test_installing_does_not_import_chainer():
    """The program may still set the environment variables that Chainer reads when it is imported."""
    code = "import sys, rmsprop_graves; rmsprop_graves.install_in_chainer(); print('chainer' in sys.modules)"
    assert run_python(code)[0] == "False\n"


def test_threads_may_import_chainer_and_this_class_at_the_same_time():
    """One thread imports Chainer and needs this package's modules, while another imports them and needs Chainer."""
    run_python(f"""
import threading, rmsprop_graves

rmsprop_graves.install_in_chainer()
errors = []

def execute(code):
    try:
        exec(code, {{}})
    except BaseException as error:
        errors.append(error)

codes = ["import rmsprop_graves; rmsprop_graves.RMSpropGraves", "import chainer"] * 2
threads = [threading.Thread(target=execute, args=(code,)) for code in codes]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
{IS_INSTALLED}""")

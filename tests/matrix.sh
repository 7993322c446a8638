#!/bin/sh
# Runs `make test` on every Python from 3.8 to 3.15 that this machine has. A row has Numba if there is a wheel:
#   - the oldest Python, with the oldest NumPy and Numba that support it: the lower bounds in pyproject.toml;
#   - every other Python, with the newest NumPy and Numba for it: what a user installs today;
#   - the newest Python once more, with the oldest Chainer: pyproject.toml's other lower bound.
# No row has MPI: its tests take minutes, and plain `make test` runs them.
# Only the oldest Python runs nearly every test, so that all rows together take less than an hour. It skips tests/gpu,
# which plain `make test` runs. The row of the oldest Chainer skips tests/docs, tests/gpu and tests/kernels. The other
# rows skip the tests in `between`; of these rows, only this machine's newest Python and the chroot's 3.15 run
# tests/kernels.
# TESTED=3.11 skips the row of Python 3.11, unless it is the oldest.
# If the machine lacks 3.14 or 3.15, they run in a chroot of Debian sid, if one can be made.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        # pyenv also puts shims on the PATH for versions that are not active; those fail.
        if "$candidate" -c '' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

run() {
    echo "== Python $1 ${4:-} ${5:-}"
    make test VENV=".venv-$3" PYTHON="$2" WITH="${4:-}" OPTIONAL=numba PYTEST="${PYTEST:--n auto} ${5:-}"
}

newest_here() {
    for candidate in 3.15 3.14 3.13 3.12 3.11 3.10 3.9 3.8; do
        if [ -n "$(find_python $candidate)" ]; then
            echo $candidate
            return
        fi
    done
}

in_sid() {
    echo "== Python $1 in a chroot of Debian sid"
    less="$between --ignore=tests/kernels"
    [ "$1" != 3.15 ] || less=$between
    ./tests/sid.sh true && ./tests/sid.sh make test VENV=".venv-$1" PYTHON="python$1" OPTIONAL=numba \
        PYTEST="${PYTEST:--n auto} $less"
}

between='--ignore=tests/docs --ignore=tests/plan --ignore=tests/test_lives.py --ignore=tests/optimizer/test_random_hooks.py'
between="$between --ignore=tests/kernels/test_same_bits.py --ignore=tests/gpu"
oldest=
last=$(newest_here)
for version in 3.8 3.9 3.10 3.11 3.12 3.13 3.14 3.15; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        case $version in
            3.14 | 3.15)
                # Status 69: the chroot cannot be made. sid.sh has printed why.
                in_sid "$version" || [ $? = 69 ]
                ;;
            *) echo "== Python $version: not on this machine" ;;
        esac
        continue
    fi
    with= less="$between --ignore=tests/kernels"
    [ "$version" != "$last" ] || less=$between
    if [ -z "$oldest" ]; then
        oldest=$version less=--ignore=tests/gpu
        case $version in
            3.11) with='numpy==1.23.2 numba==0.57.0' ;;
            3.12) with='numpy==1.26.0 numba==0.59.0' ;;
            3.13) with='numpy==2.1.0 numba==0.61.0' ;;
            *) with='numpy==1.22.0 numba==0.57.0' ;;
        esac
    fi
    newest=$version newest_python=$python
    if [ "$version" = "${TESTED:-}" ] && [ "$version" != "$oldest" ]; then
        echo "== Python $version: tested before"
        continue
    fi
    run "$version" "$python" "$version" "$with" "$less"
done
[ -n "$oldest" ] || { echo "no Python from 3.8 to 3.15 was found" >&2; exit 1; }
run "$newest" "$newest_python" "$newest-chainer-7.0" 'chainer==7.0.0.post1' '--ignore=tests/docs --ignore=tests/gpu --ignore=tests/kernels'

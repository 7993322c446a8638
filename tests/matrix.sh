#!/bin/sh
# Runs `make test` on every Python from 3.8 to 3.13 that is on this machine: with the oldest NumPy on the oldest,
# the newest on the others, and once more on the newest Python with the oldest Chainer.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        # A pyenv shim is on the path even where it has nothing to run.
        if "$candidate" -c '' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

run() {
    echo "== Python $1 ${4:-}"
    make test VENV=".venv-$3" PYTHON="$2" WITH="${4:-}"
}

oldest=
for version in 3.8 3.9 3.10 3.11 3.12 3.13; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "== Python $version: not on this machine"
        continue
    fi
    with=
    if [ -z "$oldest" ]; then
        oldest=$version
        case $version in
            3.11) with='numpy==1.23.2' ;;
            3.12) with='numpy==1.26.0' ;;
            3.13) with='numpy==2.1.0' ;;
            *) with='numpy==1.22.0' ;;
        esac
    fi
    run "$version" "$python" "$version" "$with"
    newest=$version newest_python=$python
done
[ -n "$oldest" ] || { echo "no Python from 3.8 to 3.13 was found" >&2; exit 1; }
run "$newest" "$newest_python" "$newest-chainer-7.0" 'chainer==7.0.0.post1'

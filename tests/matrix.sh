#!/bin/sh
# Runs `make test` on every Python from 3.8 to 3.15: with the oldest NumPy on the oldest, the newest on the others, and
# once more on a new Python with the oldest Chainer. 3.14 and 3.15 run in a root of Debian sid where they are not on
# this machine and such a root can be made.
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

in_sid() {
    echo "== Python $1 in a root of Debian sid"
    ./tests/sid.sh true && ./tests/sid.sh make test VENV=".venv-$1" PYTHON="python$1"
}

oldest=
for version in 3.8 3.9 3.10 3.11 3.12 3.13 3.14 3.15; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        case $version in
            3.14 | 3.15)
                # Status 69 is that of a root that cannot be made, and then it has said why.
                in_sid "$version" || [ $? = 69 ]
                ;;
            *) echo "== Python $version: not on this machine" ;;
        esac
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
[ -n "$oldest" ] || { echo "no Python from 3.8 to 3.15 was found" >&2; exit 1; }
run "$newest" "$newest_python" "$newest-chainer-7.0" 'chainer==7.0.0.post1'

#!/bin/sh
# tests/sid.sh COMMAND [ARGUMENT ...]: runs a command in this folder, with Debian sid as its root: sid has Python 3.14
# and 3.15, which older systems lack. The first call makes that root in .venv-sid, which takes a minute.
# It needs root, and debootstrap or apt-get. If the root cannot be made, the script says why and exits with status 69.
set -eu
cd "$(dirname "$0")/.."
folder=$PWD root=$PWD/.venv-sid

cannot() {
    echo "$0: $1" >&2
    exit 69
}

[ "$(id -u)" = 0 ] || cannot "a root of Debian sid can only be made by root"
unshare --mount true 2>/dev/null || cannot "this machine allows no mounts of one's own"
if [ ! -e "$root/made" ]; then
    if ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || cannot "there is neither debootstrap nor apt-get"
        { apt-get update -qq && apt-get install -y -qq debootstrap; } >/dev/null || cannot "debootstrap cannot be installed"
    fi
    rm -rf "$root"
    packages=python3.14-venv,python3.15-venv,make,g++,ca-certificates
    mkdir "$root"
    debootstrap --variant=minbase --include="$packages" sid "$root" >"$root.log" 2>&1 ||
        cannot "debootstrap has failed: $(tail -n 1 "$root.log")"
    mv "$root.log" "$root/made"
fi

# The settings of the machine: host names and pip's index. Its certificates are mounted below.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
for file in /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" "$HOME/.pip"; do
    if [ -e "$file" ]; then
        mkdir -p "$root${file%/*}"
        cp -R "$file" "$root${file%/*}/"
    fi
done
# Only this process and its children see the mounts, which end with them.
exec unshare --mount sh -euc '
    root=$1 folder=$2
    shift 2
    for mounted in /proc /sys /dev /dev/pts /dev/shm /tmp /etc/ssl/certs "$folder"; do
        mkdir -p "$root$mounted"
        mount --bind "$mounted" "$root$mounted"
    done
    exec chroot "$root" /bin/sh -euc '\''cd "$0" && exec "$@"'\'' "$folder" "$@"
' sh "$root" "$folder" "$@"

#!/bin/sh
# tests/sid.sh COMMAND [ARGUMENT ...]: runs a command in this folder, in a chroot of Debian sid, which has Python 3.14
# and 3.15. The first call makes the chroot in .venv-sid, which takes a minute.
# It needs root, and debootstrap or apt-get. If the chroot cannot be made, it prints why and exits with status 69.
set -eu
cd "$(dirname "$0")/.."
folder=$PWD root=$PWD/.venv-sid

cannot() {
    echo "$0: $1" >&2
    exit 69
}

[ "$(id -u)" = 0 ] || cannot "only root can make a chroot of Debian sid"
unshare --mount true 2>/dev/null || cannot "this machine does not allow private mounts (unshare --mount)"
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

# Copies the machine's host names and pip configuration. Its certificates are mounted below.
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

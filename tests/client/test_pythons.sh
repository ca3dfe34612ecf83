#!/bin/sh
# Runs the short suite of the Python client beside a real daemon, on each Python from 3.9 to 3.14
# that this machine has, or in a Debian for armhf under qemu. It names those that cannot be had.
# Usage: test_pythons.sh pythons | armhf
set -eu
cd "$(dirname "$0")/../.."
home=$(mktemp -d /tmp/bd-pythons-XXXXXX)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bucketd-test
socket=$home/run/bucketd.sock
.venv/bin/bucketd serve --state-dir "$home/state" --runtime-dir "$home/run" \
    >"$home/log" 2>&1 &
daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon 2>/dev/null || true; rm -rf "$home"' EXIT
trap 'exit 130' INT TERM
for _ in $(seq 200); do
    [ -S "$socket" ] && break
    sleep 0.05
done
[ -S "$socket" ] || { cat "$home/log"; exit 1; }
# No bytecode: other versions may run the same files.
export PYTHONDONTWRITEBYTECODE=1
failed=0

find_python() {
    for python in "$(command -v "python$1" || true)" "$HOME"/.pyenv/versions/"$1".*/bin/"python$1"; do
        # pyenv's shims stand on PATH for versions that are not in use.
        if [ -x "$python" ] && "$python" -c pass 2>/dev/null; then
            echo "$python"
            return
        fi
    done
}

pythons() {
    for version in 3.9 3.10 3.11 3.12 3.13 3.14; do
        python=$(find_python $version)
        if [ -z "$python" ]; then
            echo "not tried: Python $version is not on this machine"
        else
            "$python" -W error tests/client/short_suite.py "$PWD/client/python" "$socket" || failed=1
        fi
    done
}

armhf() {
    # 32 bits with 64-bit time, as Raspberry Pi OS has.
    tree=$cache/trixie-armhf
    qemu=$(command -v qemu-arm-static || command -v qemu-arm || true)
    if [ -z "$qemu" ]; then
        echo "not tried: armhf needs qemu-user-static"
        return
    fi
    if [ ! -d "$tree" ]; then
        if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
            echo "not tried: armhf needs debootstrap, as root"
            return
        fi
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -1)
        rm -rf "$tree.new"
        mkdir -p "$cache"
        debootstrap --variant=minbase --arch=armhf --foreign --include=python3 trixie \
            "$tree.new" "$mirror" >"$home/debootstrap" 2>&1 || { tail -5 "$home/debootstrap"; exit 1; }
        # The second stage would need a kernel that runs foreign programs; unpacking does not.
        for package in "$tree.new"/var/cache/apt/archives/*.deb; do
            dpkg-deb -x "$package" "$tree.new"
        done
        mv "$tree.new" "$tree"
    fi
    SHORT_SUITE_EMULATED=1 "$qemu" -L "$tree" "$tree/usr/bin/python3.13" -W error \
        tests/client/short_suite.py "$PWD/client/python" "$socket" || failed=1
}

"$1"
exit $failed

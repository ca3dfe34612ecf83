#!/bin/sh
# move-buckets.sh file|etcd STATE_DIR CONFIG: before a daemon starts on that engine, carry to it what
# the daemon on STATE_DIR has kept on the other one. Does nothing where that is done already.
#
# CONFIG has the endpoints. Until this is over nobody is served, so run `bucketctl migrate` before,
# with the note STATE_DIR/moving; then only what has changed since is left to carry.
set -eu
to=$1 state=$2 config=$3
case $to in
    etcd) from=file ;;
    file) from=etcd ;;
    *) echo "move-buckets: the engine to move to is file or etcd, not $to" >&2; exit 2 ;;
esac
[ "$(cat "$state/moved" 2>/dev/null)" != "$to" ] || exit 0

scratch=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || :; wait; rm -rf "$scratch"' EXIT
trap 'exit 143' TERM INT HUP

# The one on files holds STATE_DIR's lock, so no other can serve it meanwhile.
serve() {
    place=$scratch/$1
    [ "$1" = etcd ] || place=$state
    BUCKETD_STORE_ENGINE=$1 bucketd serve --config "$config" --log-level warning \
        --state-dir "$place" --runtime-dir "$scratch/$1.run" --socket "$scratch/$1.sock" &
    pids="$pids $!"
}
# Files stay, aside, where no daemon takes what is old for what is true.
aside() {
    [ ! -e "$state/devices" ] || mv "$state/devices" "$state/devices.$(date +%Y%m%d-%H%M%S)"
}
if [ "$to" = file ] && [ ! -e "$state/moving" ]; then
    aside
fi
serve "$from"
serve "$to"
bucketctl migrate --from "$from" --to "$to" --socket "$scratch/$from.sock" \
    --to-socket "$scratch/$to.sock" --note "$state/moving" --quick --timeout 60
for pid in $pids; do
    kill "$pid"
    wait "$pid"
done
pids=
# In this order, a crash in between costs nothing: without the note nothing is taken for removed.
rm -f "$state/moving"
echo "$to" >"$state/moved.part"
mv "$state/moved.part" "$state/moved"
if [ "$to" = etcd ]; then
    aside
fi

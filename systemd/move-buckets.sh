#!/bin/sh
# move-buckets.sh file|etcd STATE_DIR CONFIG: copy all buckets to an engine from the other one, before
# a daemon on STATE_DIR starts with that engine. A second run does nothing.
#
# CONFIG has the endpoints. No requests are served meanwhile, so first run `bucketctl migrate` with
# --note STATE_DIR/moving; then only the buckets that have changed since have to be copied here.
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

# The daemon on files holds STATE_DIR's lock, so no other daemon can serve it meanwhile.
serve() {
    place=$scratch/$1
    [ "$1" = etcd ] || place=$state
    BUCKETD_STORE_ENGINE=$1 bucketd serve --config "$config" --log-level warning \
        --state-dir "$place" --runtime-dir "$scratch/$1.run" --socket "$scratch/$1.sock" &
    pids="$pids $!"
}
# Keep the files under another name, where no daemon serves old buckets from them.
rename_files() {
    [ ! -e "$state/devices" ] || mv "$state/devices" "$state/devices.$(date +%Y%m%d-%H%M%S)"
}
if [ "$to" = file ] && [ ! -e "$state/moving" ]; then
    rename_files
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
# The note is removed first: without it a later run removes no bucket, so a crash in between is safe.
rm -f "$state/moving"
echo "$to" >"$state/moved.part"
mv "$state/moved.part" "$state/moved"
if [ "$to" = etcd ]; then
    rename_files
fi

#!/bin/sh
# An automation that logs in once and resumes its session in every later task iteration,
# with nothing but sh, curl (7.76 or newer) and sed:
#
#   bucketctl run --device phone-1 --job login -- sh examples/login-session-curl.sh
#
# Run it twice: the first run logs in, the second resumes.
set -eu

user=demo-user
socket=${BUCKETD_SOCKET:-${XDG_RUNTIME_DIR:-/run}/bucketd/bucketd.sock}
[ -S "$socket" ] || socket=${BUCKETD_SOCKET:-/run/bucketd/bucketd.sock}

# Stands in for what your automation does on the phone: type the name, wait for the code, …
log_in() {
    printf '%s:%s' "$user" "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
}

# Stands in for the work itself.
work() {
    case $1 in
    "$user":*) ;;
    *) echo "login: the app refuses the session" >&2 && exit 1 ;;
    esac
}

# call METHOD QUERY [CURL OPTION…]: the daemon's answer; not 0 when it refused. The token goes
# through a descriptor, because every user of the host can read the arguments of a process.
call() {
    method=$1 query=$2
    shift 2
    curl --silent --show-error --fail-with-body --unix-socket "$socket" --request "$method" \
        --header @/dev/fd/3 "$@" "http://localhost/v1/bucket$query" 2>&1 3<<HEADERS
Content-Type: application/json
${BUCKETD_TOKEN:+Authorization: Bearer $BUCKETD_TOKEN}
HEADERS
}

# text NAME: the text that a member of the JSON on standard input has. Sound for a text without
# quotes and backslashes, as our session is; for anything richer use jq.
text() {
    sed -En "s/.*\"$1\" *: *\"([^\"\\\\]*)\".*/\1/p"
}

stop() {
    cause=$(printf '%s\n' "$1" | sed -En 's/.*"error" *: *"(([^"\\]|\\.)*)".*/\1/p')
    echo "login: cannot use the bucket: ${cause:-$1}" >&2
    exit 1
}

[ -S "$socket" ] || stop "there is no socket $socket; is bucketd running?"
stored=$(call GET '?key=sessionToken&key=loggedIn') || stop "$stored"
session=
if printf '%s\n' "$stored" | grep -Eq '"loggedIn" *: *true'; then
    session=$(printf '%s\n' "$stored" | text sessionToken)
fi

if [ -n "$session" ]; then
    echo "login: resuming the stored session, no login needed"
else
    echo "login: no session stored, logging in as $user"
    session=$(log_in)
    answer=$(printf '{"sessionToken": "%s", "loggedIn": true, "loginTimestamp": %s000}' \
        "$session" "$(date +%s)" | call PATCH '' --data-binary @-) || stop "$answer"
    revision=$(printf '%s\n' "$answer" | sed -En 's/.*\} *, *"revision" *: *([0-9]+).*/\1/p')
    echo "login: session stored (revision $revision)"
fi
work "$session"

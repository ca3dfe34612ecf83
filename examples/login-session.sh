#!/bin/sh
# An automation that logs in once and resumes its session in every later task iteration,
# with bucketctl:
#
#   bucketctl run --device phone-1 --job login -- sh examples/login-session.sh
#
# Run it twice: the first run logs in, the second resumes.
set -eu

user=demo-user

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

stop() {
    echo "login: cannot use the bucket: ${1#bucketctl: }" >&2
    exit 1
}

# Several keys come as one JSON object, without those that the bucket does not have.
stored=$(bucketctl get loggedIn sessionToken 2>&1) || stop "$stored"
session=
if printf '%s\n' "$stored" | grep -Eq '"loggedIn" *: *true' &&
    printf '%s\n' "$stored" | grep -q '"sessionToken"'; then
    session=$(bucketctl get --raw sessionToken)
fi

if [ -n "$session" ]; then
    echo "login: resuming the stored session, no login needed"
else
    echo "login: no session stored, logging in as $user"
    session=$(log_in)
    # On standard input, because every user of the host can read the arguments of a process.
    answer=$(printf '{"sessionToken": "%s", "loggedIn": true, "loginTimestamp": %s000}' \
        "$session" "$(date +%s)" | bucketctl set --json --data - 2>&1) || stop "$answer"
    revision=$(printf '%s\n' "$answer" | sed -En 's/.*"revision" *: *([0-9]+).*/\1/p')
    echo "login: session stored (revision $revision)"
fi
work "$session"

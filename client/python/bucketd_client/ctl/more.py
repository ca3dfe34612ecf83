"""The commands that are needed now and then: to look closer, to mend, to move."""

from __future__ import annotations

from .commands import DAEMON, TARGET, Command, Option

CALLS = tuple(option for option in DAEMON if option.name != "curl")
ONE_BUCKET = tuple(option for option in TARGET if option.name != "curl")

API_NOTES = """\
PATH begins with /v1 and has its names escaped. KEY=TEXT, KEY:=JSON, --data TEXT or - make
the body, which is JSON unless a Content-Type is given. The answer is printed as it is, a
refusal too; its exit status is that of every command. Inside `bucketctl run` the token goes
with /v1/bucket, /v1/device/bucket and /v1/context. Bucket events: see watch."""
DIFF_NOTES = """\
A line begins with - for what the bucket has, with + for what the other side has instead;
places are JSON Pointers. FILE holds a JSON object, or is a bucket's file or one line of an
export; - is standard input."""
EDIT_NOTES = """\
The editor is $VISUAL, else $EDITOR, else vi. The bucket is replaced only if nobody has
changed it meanwhile and its schema allows the new one. Otherwise you may edit again, or
stop: the text stays in a file that is named, and --from goes on with it."""

COMMANDS = (
    Command(
        "api", "METHOD PATH [KEY=TEXT | KEY:=JSON | -]…", "send any request, print the answer",
        (
            Option("header", "'NAME: VALUE'", "send this header too (as often as needed)", True),
            Option("include", "", "print status and headers as well"),
            Option("data", "TEXT", "the body; - reads it from standard input"),
            *(option for option in DAEMON if option.name != "json"),
        ),
        "bucketctl api GET /v1/status\n"
        "bucketctl api POST /v1/contexts device=phone-1 job=login ttl_seconds:=60\n"
        "bucketctl api GET '/v1/buckets?limit=10' --include", "api:api", 2, notes=API_NOTES,
    ),
    Command(
        "diff", "[FILE]", "tell what differs between a bucket and a file or another bucket",
        (
            Option("to-device", "D", "compare with the bucket of this device (else the same)"),
            Option("to-job", "J", "compare with the bucket of this job"),
            Option("exit-code", "", "exit status 1 if they differ"),
            *ONE_BUCKET,
        ),
        "bucketctl diff --device phone-1 --job login --to-device phone-2 --to-job login\n"
        "bucketctl diff --device phone-1 --job login saved.json --exit-code", "diff:diff", most=1,
        notes=DIFF_NOTES,
    ),
    Command(
        "edit", "", "edit the bucket as JSON in your editor",
        (*ONE_BUCKET, Option("from", "FILE", "begin with this text instead of the bucket")),
        "bucketctl edit --device phone-1 --job login\n"
        "EDITOR='code --wait' bucketctl edit --device phone-1", "edit:edit", most=0,
        notes=EDIT_NOTES,
    ),
)  # fmt: skip

"""The commands that are needed now and then: to inspect, to repair, to move buckets."""

from __future__ import annotations

from .daily import DAEMON, FILTER, SURE, TARGET, Command, Option

CALLS = tuple(option for option in DAEMON if option.name != "curl")
ONE_BUCKET = tuple(option for option in TARGET if option.name != "curl")

API_NOTES = """\
PATH begins with /v1, with its names escaped. KEY=TEXT, KEY:=JSON, --data TEXT or - make the
body, which is JSON unless a Content-Type is given. The response is printed as it is, a refusal
too; the exit status is that of every command. Inside `bucketctl run` the token is sent with
/v1/bucket, /v1/device/bucket and /v1/context."""
APPLY_NOTES = """\
DIR/schemas/AUTOMATION.json are schemas. DIR/buckets/ has, at any depth, .json files with one
{"device", "job", "automation", "bucket"} each, or .ndjson files with one a line. Their keys are
set; keys, buckets and schemas that are not named stay. The plan is shown first, and you are
asked; a script gives --yes. A bucket that changes between plan and write is refused, not
overwritten. The plan names what a schema, stored or in DIR, would refuse, and each schema that
stored buckets would violate; then nothing is changed, and the exit status is 5."""
COMPLETION_NOTES = """\
The scripts complete commands and options and, where you are an operator, the names of devices,
jobs and automations, keys, and contexts. They ask `bucketctl completion words -- WORD…`."""
DIFF_NOTES = """\
A line begins with - for what the bucket has, with + for what the other side has instead;
places are JSON Pointers. FILE holds a JSON object, or is a bucket's file or one line of an
export; - is standard input."""
DOCTOR_NOTES = """\
Checks context, systemd unit, socket, daemon, access, versions, store, file system, disk,
permissions, quarantine, schemas and clock, what the daemon and its store report as a problem,
and the first thousand buckets; with --buckets each bucket, whether it can be read and its schema
allows it. Exit status 0: no problem (there may be warnings, such as a file in the quarantine); 1:
a problem; 4: the daemon cannot be reached."""
EDIT_NOTES = """\
The editor is $VISUAL, else $EDITOR, else vi; it must wait until the text is closed. The bucket
is replaced only if nobody has changed it meanwhile and its schema allows the new one. Otherwise
you may edit again, or stop: the text stays in a file that is named, and --from goes on with it;
--if-match then refuses to overwrite a change that you were not shown. The text also stays if
the editor ends without saving, since it may still be open."""
EXPORT_NOTES = """\
One bucket a line, as in its file: {"format", "device", "job", "automation", "revision",
"created_at", "updated_at", "bucket"}. Each bucket is whole, and the newest acknowledged one when
its turn comes; the files under write.lock are all of one moment. The names may be patterns: *,
?, [a-z] ([*] is a star). A tar holds the files as below the state directory. Exit status 1: a
bucket could not be read and was left out."""
IMPORT_NOTES = """\
FILE is what export wrote, lines or tar, or the file of one bucket; without it, or with -,
standard input. Buckets are replaced, unreadable ones too, and others left alone; a second run
changes nothing. Revisions and times are the daemon's own. A bucket that the daemon refuses is
named, and the rest goes on; the exit status is that of the first refusal."""
FORGET_NOTES = """\
Removes all buckets of the device, its device bucket too, and revokes its contexts. You are
asked first; a script gives --yes. Exit status 1: a bucket could not be read and was left alone."""
RENAME_NOTES = """\
Each bucket gets the new device, with a revision that begins at 1; a bucket that the new name
already has is not overwritten. After a failure the same command goes on where it stopped. A
device with live contexts is refused, because its jobs would go on under the old name."""
MIGRATE_NOTES = """\
Both daemons go on serving. Each bucket is copied with its revision, times and automation; what
changes meanwhile is copied again, and schemas set through the API come last. Then both sides are
read, counted and compared by checksum. Exit status 0: all is there; 1: something has changed
since, or could not be copied. A second run copies the rest, also after a kill. A bucket that was
written later on the target, or a different schema there, stays and is named. --note records
what was copied, so that a later run can also remove what was removed at the source: give all
runs of one move the same file. While the source has what cannot be read, nothing is removed at
the target. docs/fleet.md describes the move of a whole farm."""
SWEEP_NOTES = """\
N is a whole number of days, from 1 to 36525. What is removed cannot be had back: export first
what may be wanted again. A bucket that is written meanwhile stays. You are asked first; a script
gives --yes. The daemon does the same by itself where [retention] days is set; --dry-run with that
number shows what would go. Both refuse to work while the clock has jumped since the daemon
started. Exit status 1: a bucket could not be read and was left alone."""
USAGE_NOTES = """\
Sizes are those of the buckets as compact JSON, which [limits] max_device_bytes bounds for each
device; --over with that number shows the devices that cannot grow any more."""
WATCH_NOTES = """\
On a terminal - marks what was there, + what is there now. Elsewhere each change is one line of
JSON: {"device", "job", "revision", "set", "removed"}, with revision 0 once the bucket is deleted;
with --json {"event", "id", "data"}. With KEYs only changes of these are told. watch waits for a
daemon that restarts. If the daemon no longer knows what happened meanwhile, the line has
"gap": true, and in "set" the whole bucket (with --all nothing: read again what you need). --all
also tells of contexts that begin and end. Ctrl-C ends it, and so does the end of its reader, as
in `bucketctl watch … | head -1`."""

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
        "bucketctl api GET '/v1/buckets?limit=10' --include",
        "commands.api:api", 2, notes=API_NOTES,
    ),
    Command(
        "apply", "", "make schemas and buckets as a directory says, with a plan first",
        (Option("file", "DIR", "the directory", short="f"), *SURE, *CALLS),
        "bucketctl apply -f fleet --dry-run\nbucketctl apply -f fleet --yes",
        "commands.apply:apply",
        most=0, notes=APPLY_NOTES,
    ),
    Command(
        "completion", "bash|zsh|fish", "print the completion script of a shell",
        (Option("line", "LINE", "with words: the command line up to the cursor, as bash has it"),),
        "bucketctl completion bash > ~/.local/share/bash-completion/completions/bucketctl\n"
        "bucketctl completion zsh > ~/.zfunc/_bucketctl   # a directory of your $fpath\n"
        "bucketctl completion fish > ~/.config/fish/completions/bucketctl.fish",
        "commands.completion:completion", 1, notes=COMPLETION_NOTES,
    ),
    Command(
        "device forget", "DEVICE", "remove all that is kept for a device", SURE + CALLS,
        "bucketctl device forget phone-1 --dry-run\nbucketctl device forget phone-1",
        "commands.bulk:forget", 1, 1, notes=FORGET_NOTES,
    ),
    Command(
        "device rename", "OLD NEW", "move all buckets of a device to another name", SURE + CALLS,
        "bucketctl device rename emulator-5554 pixel-8",
        "commands.bulk:rename", 2, 2, notes=RENAME_NOTES,
    ),
    Command(
        "diff", "[FILE]", "show what differs between a bucket and a file or another bucket",
        (
            Option("to-device", "D", "compare with the bucket of this device (else the same)"),
            Option("to-job", "J", "compare with the bucket of this job"),
            Option("exit-code", "", "exit status 1 if they differ"),
            *ONE_BUCKET,
        ),
        "bucketctl diff --device phone-1 --job login --to-device phone-2 --to-job login\n"
        "bucketctl diff --device phone-1 --job login saved.json --exit-code",
        "commands.diff:diff", most=1,
        notes=DIFF_NOTES,
    ),
    Command(
        "doctor", "", "look for problems, and say how to fix them",
        (Option("buckets", "", "also read each bucket, and validate it by its schema"), *CALLS),
        "bucketctl doctor\nbucketctl doctor --buckets",
        "doctor.doctor:doctor", most=0, notes=DOCTOR_NOTES,
    ),
    Command(
        "edit", "", "edit the bucket as JSON in your editor",
        (
            *ONE_BUCKET,
            Option("if-match", "ETAG", "edit only if the bucket still has this ETag"),
            Option("from", "FILE", "begin with this text instead of the bucket"),
        ),
        "bucketctl edit --device phone-1 --job login\n"
        "EDITOR='code --wait' bucketctl edit --device phone-1", "commands.edit:edit", most=0,
        notes=EDIT_NOTES,
    ),
    Command(
        "export", "", "write stored buckets with their contents, one a line",
        (
            *FILTER[:3],
            Option("format", "FORMAT", "ndjson (the default), or tar"),
            Option("output", "FILE", "write to FILE, which appears once it is complete"),
            *DAEMON[:2],
            Option("json", "", "with --output: the counts as JSON, on a terminal too"),
            DAEMON[3],
        ),
        "bucketctl export > buckets.ndjson\n"
        "bucketctl export --device 'phone-*' --format tar --output phones.tar",
        "commands.export:export",
        most=0, notes=EXPORT_NOTES,
    ),
    Command(
        "import", "[FILE]", "put the buckets of an export in place", (SURE[0], *CALLS),
        "bucketctl import buckets.ndjson --dry-run\n"
        "ssh old-host bucketctl export | bucketctl import",
        "commands.import_buckets:import_", most=1,
        notes=IMPORT_NOTES,
    ),
    Command(
        "migrate", "", "copy all buckets to a daemon on another engine, while both are in use",
        (
            Option("from", "ENGINE", "the engine of the daemon at --socket: file or etcd"),
            Option("to", "ENGINE", "the engine of the daemon at --to-socket: etcd or file"),
            Option("to-socket", "PATH", "the socket of the daemon to copy to"),
            Option("note", "FILE", "record there what was copied, for a later run"),
            Option("quick", "", "read and compare only what is copied now, the rest by revision"),
            *FILTER[:3], SURE[0], *CALLS,
        ),
        "bucketctl migrate --from file --to etcd --to-socket /run/bucketd-etcd/bucketd.sock \\\n"
        "    --note move.ndjson\n"
        "bucketctl migrate --from etcd --to file --to-socket ~/run/bucketd.sock --device 'a-*'",
        "migrate.migrate:migrate", most=0, notes=MIGRATE_NOTES,
    ),
    Command(
        "sweep", "", "remove buckets that nobody has written for long",
        (Option("days", "N", "last written over N days ago"), *FILTER[:3], *SURE, *CALLS),
        "bucketctl sweep --days 90 --dry-run\n"
        "bucketctl sweep --days 30 --device 'emulator-*' --yes", "commands.sweep:sweep", most=0,
        notes=SWEEP_NOTES,
    ),
    Command(
        "usage", "", "show how much each device has stored",
        (Option("over", "BYTES", "only devices with more than that"), *FILTER[:1], *CALLS),
        "bucketctl usage\nbucketctl usage --over 1000000 --json", "commands.sweep:usage", most=0,
        notes=USAGE_NOTES,
    ),
    Command(
        "watch", "[KEY…]", "print each change of a bucket as it happens",
        (
            *TARGET,
            Option("all", "", "of all buckets that --device, --job and --automation fit"),
            Option("snapshot", "", "begin with the bucket as it is"),
            Option("since", "ID", "go on after this event (--json shows its id)"),
        ),
        "bucketctl watch --device phone-1 --job login\n"
        "bucketctl watch --device phone-1 --job login loggedIn | jq .set\n"
        "bucketctl watch --all --device 'phone-*'", "commands.watch:watch", notes=WATCH_NOTES,
    ),
)  # fmt: skip

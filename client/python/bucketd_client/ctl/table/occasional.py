"""The table of occasional commands: to inspect, to repair, to move buckets."""

from __future__ import annotations

from .daily import (
    ALWAYS,
    CURL,
    DAEMON,
    FILTER,
    FORMAT,
    FREE,
    NO_TRASH,
    RAW,
    REACH,
    REVEAL,
    SILENT,
    SURE,
    TARGET,
    Command,
    Option,
)

CALLS = tuple(option for option in DAEMON if option.name != "curl")
ONE_BUCKET = tuple(option for option in TARGET if option.name != "curl")

API_NOTES = """\
PATH begins with /v1 and has its names escaped. KEY=TEXT, KEY:=JSON, --data TEXT or - give the
body, which is JSON unless a Content-Type is given. The command prints the response unchanged, also
an error; ?mask=secrets in PATH masks secrets. The exit status is as for all commands. Inside
`bucketctl run` the token is sent with /v1/bucket, /v1/device/bucket and /v1/context."""
APPLY_NOTES = """\
DIR/schemas/AUTOMATION.json are schemas. DIR/buckets/ has, at any depth, .json files with one
{"device", "job", "automation", "bucket"} each, or .ndjson files with one per line. Their keys are
set; keys, buckets and schemas that are not named stay. apply shows a plan and asks first; scripts
use --yes. It does not overwrite a bucket that changes between plan and write. The plan names the
buckets that a schema, stored or in DIR, would refuse, and each schema that stored buckets would
violate; in these cases nothing is changed, and the exit status is 5."""
BACKUP_NOTES = """\
DIR gets a directory named by the time (20261130T052619Z), with mode 0700, which appears once it is
complete and durable: buckets.ndjson, the lines of an export, with secrets; schemas.ndjson, the
schemas set through the API; manifest.json, with counts and checksums. The daemon notes the time for
status, metrics and doctor. On a host that runs bucketd.service,
`systemctl enable --now bucketd-backup.timer` does this each day. Settings and schema files are not
in it. Exit status 1: a bucket could not be read and was left out."""
COMPLETION_NOTES = """\
The scripts complete commands and options and, for an operator, the names of devices, jobs and
automations, keys, and contexts. They call `bucketctl completion words -- WORD…`."""
CONSOLE_NOTES = """\
The page shows devices and jobs live, each bucket with its history, the schemas, and the state of
the daemon. It listens on 127.0.0.1 alone, and acts as you, an operator. A link opens it once, and
within five minutes; Enter gives another one. The page changes nothing until you unlock it there,
and with --read-only nothing at all. Over ssh the command prints the line that forwards the port.
The console ends with Ctrl-C, with its terminal, or 30 minutes after a page was last seen."""
DIFF_NOTES = """\
@REVISION is the earlier state that this revision left, as history has it; it is compared with the
state now, or with that of a second revision, and is the side of the lines with -. Otherwise
A line with - shows a value of the bucket, a line with + the value of the other side; places are
JSON Pointers. FILE holds a JSON object, or is a bucket's file or one line of an export; - is
standard input. On a terminal both sides of a secret are shown as ••••, unless --reveal is given."""
DOCTOR_NOTES = """\
Checks context, systemd unit, socket, daemon, access, versions, store, file system, disk,
permissions, quarantine, schemas and clock, the problems that the daemon and its store report, and
the first thousand buckets; with --buckets reads each bucket and validates it by its schema. Exit
status 0: no problem (there may be warnings, such as a file in the quarantine); 1: a problem; 4: the
daemon cannot be reached."""
EDIT_NOTES = """\
The editor is $VISUAL, else $EDITOR, else vi; it must not return before the text is closed. The
bucket is replaced only if it has not changed meanwhile and its schema allows the text. Otherwise
you can edit again, or stop: the text stays in a file, which is named, and --from continues with it;
--if-match then refuses to overwrite a change that you have not seen. The text also stays if the
editor ends without saving, since the text may still be open. A secret is {"$masked": true} in the
text, and stays as it is where that stays; --reveal shows secrets. Only changed keys are sent."""
EXPORT_NOTES = """\
export writes one bucket per line, as in its file: {"format", "device", "job", "automation",
"revision", "created_at", "updated_at", "bucket"}. Each bucket has the state that is acknowledged
when the export reaches it; copy the files under write.lock for the state of one moment. The names
may be patterns: *, ?, [a-z] ([*] is a star). A tar has the files as below the state directory.
A pipe or file has all values, secrets too; a terminal shows •••• for these, unless --reveal is
given. Exit status 1: a bucket could not be read and was left out."""
GREP_NOTES = """\
PATTERN is a regular expression of Python. It is compared with each key, and with each string,
number, true, false and null. A line has the names, the place as a JSON Pointer, and the value; if
standard output is not a terminal it is JSON: {"device", "job", "path", "value"}. Secrets are
neither searched nor shown unless --reveal is given, only their keys. Exit status 1: nothing was
found, or a bucket could not be read."""
BREAK_NOTES = """\
A hold ends by itself with its process. break is for a process that hangs or is stopped: it is told,
and every later write with the fence of its hold is refused with hold_lost. bucketctl run --hold
then sends SIGTERM to its command."""
HOLDS_NOTES = """\
Those who wait come last, in the order in which they will be served. The state is "held, exclusive"
if the daemon refuses the writes of all others meanwhile, "held, away" while a holder may come back
after a restart of the daemon. If standard output is not a terminal, the command prints one JSON
array, with one hold per line."""
IMPORT_NOTES = """\
FILE is the output of export, lines or tar, or the file of one bucket; without it, or with -,
standard input. Buckets in FILE are replaced, unreadable ones too, and all others stay; a second run
changes nothing. The daemon assigns new revisions and times. A bucket that the daemon refuses, or
that has a mask in place of a secret, is named, and the others are still imported; the exit status
is that of the first error."""
FORGET_NOTES = """\
Removes all buckets of the device, its device bucket too, and revokes its contexts. The buckets go
into the trash, unless --no-trash is given. The command asks first; scripts use --yes. Exit status
1: a bucket could not be read and was not removed."""
RENAME_NOTES = """\
Each bucket moves to the new name, with a revision that begins at 1; a bucket that the new name
already has is not overwritten. After a failure the same command continues. The command refuses a
device with live contexts, because their jobs would still use the old name."""
MIGRATE_NOTES = """\
Both daemons keep serving. Each bucket is copied with its revision, times and automation; buckets
that change meanwhile are copied again, and schemas set through the API come last. Then both sides
are read, counted and compared by checksum. Exit status 0: all buckets are copied; 1: some have
changed since, or could not be copied. A second run copies the rest, also after a kill. A bucket
that was written later on the target, or a different schema there, stays and is named. --note
records the copied buckets, so that a later run can also remove those removed at the source: use
the same file for all runs of one move. While a bucket of the source cannot be read, nothing is
removed at the target. docs/fleet.md describes the move of a whole farm."""
QUARANTINE_NOTES = """\
The daemon puts a file there that it cannot read, before another takes its place, and what stands in
the way of a bucket's file. It never removes one. The name has the time, and the names of device and
job as in the path of the file."""
QUARANTINE_SHOW_NOTES = """\
A pipe or file gets the content byte for byte. Nobody can tell which values of a damaged file are
secrets, so a terminal shows size and age, and the content only with --reveal."""
RESTORE_NOTES = """\
BACKUP is one directory that bucketctl backup has written; its checksums are compared first. Buckets
in it are stored with the revisions (or later ones), times and automations that they had; then its
schemas are set. All others stay, and a second run changes nothing. The command asks first; scripts
use --yes. Exit status: that of the first bucket that was refused."""
SWEEP_NOTES = """\
N is a whole number of days, from 1 to 36525. Removed buckets go into the trash, from where
bucketctl trash restore brings them back, unless --no-trash is given. A bucket that is written
meanwhile stays. The command asks first; scripts use --yes. The daemon does the same by itself if
[retention] days is set; --dry-run with that number shows what it would remove. Both do nothing if
the clock has jumped since the daemon started. Exit status 1: a bucket could not be read and was not
removed."""
USAGE_NOTES = """\
Sizes are those of the buckets as compact JSON, which [limits] max_device_bytes limits for each
device; --over with that number shows the devices that cannot grow."""
WAIT_NOTES = """\
KEY may be a JSON Pointer, as in get; a string is 'KEY="TEXT"'. wait prints the value, at once if
the bucket has it already. It waits for a daemon that restarts. Exit status 1: the time of --for is
over."""
WATCH_NOTES = """\
On a terminal - marks old values, + new values. Elsewhere each change is one line of JSON:
{"device", "job", "revision", "set", "removed"}, with revision 0 once the bucket is deleted; with
--json {"event", "id", "data"}. With KEYs only changes of these keys are printed. watch waits for a
daemon that restarts. If the daemon no longer has the changes in between, the line has "gap": true,
and "set" has the whole bucket (with --all nothing: read the buckets again). --all also prints
contexts that begin and end. --holds also prints who waits for a hold, takes and releases it, and
begins with those that there are. Ctrl-C ends watch, and so does the end of its reader, as in
`bucketctl watch … | head -1`."""

COMMANDS = (
    Command(
        "api", "METHOD PATH [KEY=TEXT | KEY:=JSON | -]…", "send any request, print the response",
        (
            Option("header", "'NAME: VALUE'", "send this header too (may be repeated)", True),
            Option("include", "", "print status and headers as well"),
            Option("data", "TEXT", "the body; - reads it from standard input"),
            *REACH, *CURL,
        ),
        "bucketctl api GET /v1/status\n"
        "bucketctl api POST /v1/contexts device=phone-1 job=login ttl_seconds:=60\n"
        "bucketctl api GET '/v1/buckets?limit=10' --include",
        "commands.api:api", 2, notes=API_NOTES,
    ),
    Command(
        "apply", "", "set schemas and buckets to those of a directory, after a plan",
        (Option("file", "DIR", "the directory", short="f"), *SURE, *SILENT, *CALLS),
        "bucketctl apply -f fleet --dry-run\nbucketctl apply -f fleet --yes",
        "commands.apply:apply",
        most=0, notes=APPLY_NOTES,
    ),
    Command(
        "backup", "DIR", "write all buckets and schemas into a new directory of DIR",
        (Option("keep", "N", "keep the newest N backups of DIR (7), and remove others"), *CALLS),
        "bucketctl backup /srv/backups/bucketd --keep 30", "commands.backup:backup", 1, 1,
        notes=BACKUP_NOTES,
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
        "console", "", "open a page that shows and changes buckets in the browser",
        (
            Option("no-browser", "", "print the link, and open no browser"),
            Option("port", "N", "listen on this port (else on any that is free)"),
            Option("read-only", "", "let the page change nothing"),
            *REACH,
        ),
        "bucketctl console\nbucketctl console --no-browser --port 8321 --read-only",
        "commands.console:console", most=0, notes=CONSOLE_NOTES,
    ),
    Command(
        "device forget", "DEVICE", "remove all data of a device",
        NO_TRASH + SURE + SILENT + CALLS,
        "bucketctl device forget phone-1 --dry-run\nbucketctl device forget phone-1",
        "commands.bulk:forget", 1, 1, notes=FORGET_NOTES,
    ),
    Command(
        "device rename", "OLD NEW", "move all buckets of a device to another name",
        SURE + SILENT + CALLS,
        "bucketctl device rename emulator-5554 pixel-8",
        "commands.bulk:rename", 2, 2, notes=RENAME_NOTES,
    ),
    Command(
        "diff", "[FILE | @REVISION [@REVISION]]",
        "compare a bucket with a file, another bucket, or its earlier state",
        (
            Option("to-device", "D", "compare with the bucket of this device (else the same)"),
            Option("to-job", "J", "compare with the bucket of this job"),
            Option("exit-code", "", "exit status 1 if they differ"),
            *ONE_BUCKET, *REVEAL,
        ),
        "bucketctl diff phone-1/login --to-device phone-2 --to-job login\n"
        "bucketctl diff phone-1/login saved.json --exit-code\n"
        "bucketctl diff phone-1/login @3",
        "commands.diff:diff", most=2,
        notes=DIFF_NOTES, bucket=FREE,
    ),
    Command(
        "doctor", "", "look for problems, and say how to fix them",
        (
            Option("buckets", "", "also read each bucket, and validate it by its schema"),
            Option("quiet", "", "show warnings and problems alone, in words", short="q"),
            *CALLS,
        ),
        "bucketctl doctor\nbucketctl doctor --buckets",
        "doctor.doctor:doctor", most=0, notes=DOCTOR_NOTES,
    ),
    Command(
        "edit", "", "edit the bucket as JSON in your editor",
        (
            *ONE_BUCKET,
            Option("reveal", "", "edit secrets, too, in place of masks"),
            Option("if-match", "ETAG", "edit only if the bucket still has this ETag"),
            Option("from", "FILE", "begin with this text instead of the bucket"),
        ),
        "bucketctl edit phone-1/login\n"
        "EDITOR='code --wait' bucketctl edit phone-1/", "commands.edit:edit", most=0,
        notes=EDIT_NOTES, bucket=ALWAYS,
    ),
    Command(
        "export", "", "write stored buckets with their contents, one per line",
        (
            *FILTER[:3],
            Option("format", "FORMAT", "ndjson (the default), or tar", short="o"),
            Option("output", "FILE", "write to FILE, which appears once it is complete"),
            Option("history", "", "with all changes of each bucket, and their earlier values"),
            Option("quiet", "", "with --output: print no counts", short="q"),
            *REACH,
            Option("json", "", "with --output: the counts as JSON, on a terminal too"),
            *CURL, *REVEAL,
        ),
        "bucketctl export > buckets.ndjson\n"
        "bucketctl export --device 'phone-*' --format tar --output phones.tar",
        "commands.export:export",
        most=0, notes=EXPORT_NOTES,
    ),
    Command(
        "grep", "PATTERN", "search the keys and values of all buckets",
        (
            Option("ignore-case", "", "upper and lower case are the same", short="i"),
            Option("fixed-strings", "", "PATTERN is a text, not a regular expression", short="F"),
            Option("keys", "", "search keys only"),
            Option("reveal", "", "search and show secrets, too"),
            *FILTER[:3], *REACH, *FORMAT, *CURL,
        ),
        "bucketctl grep 'ada@'\nbucketctl grep --keys -i token --device 'phone-*' | jq -r .device",
        "commands.grep:grep", 1, 1, notes=GREP_NOTES,
    ),
    Command(
        "hold break", "ID", "end a hold now, or let a waiter wait no longer",
        SILENT + DAEMON,
        "bucketctl hold break 44ac2528550b93f9", "commands.holds:end", 1, 1, notes=BREAK_NOTES,
    ),
    Command(
        "hold list", "", "list who holds what, and who waits", (*FILTER[:2], *DAEMON),
        "bucketctl hold list\nbucketctl hold list --device 'phone-*'", "commands.holds:show",
        most=0, notes=HOLDS_NOTES,
    ),
    Command(
        "import", "[FILE]", "store the buckets of an export", (SURE[0], *SILENT, *CALLS),
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
            Option("note", "FILE", "record the copied buckets there, for a later run"),
            Option("quick", "", "verify only the buckets copied now, the others by revision"),
            *FILTER[:3], SURE[0], *SILENT, *CALLS,
        ),
        "bucketctl migrate --from file --to etcd --to-socket /run/bucketd-etcd/bucketd.sock \\\n"
        "    --note move.ndjson\n"
        "bucketctl migrate --from etcd --to file --to-socket ~/run/bucketd.sock --device 'a-*'",
        "migrate.migrate:migrate", most=0, notes=MIGRATE_NOTES,
    ),
    Command(
        "quarantine drop", "[ID…]", "remove files from the quarantine for good",
        (Option("all", "", "all that are in it"), *SURE, *CALLS),
        "bucketctl quarantine drop 20261130T052619Z-4f1d2a90-phone-1-login.json\n"
        "bucketctl quarantine drop --all", "commands.quarantine:drop",
    ),
    Command(
        "quarantine list", "", "list the damaged files that the daemon keeps", DAEMON,
        "bucketctl quarantine list", "commands.quarantine:show_all", most=0,
        notes=QUARANTINE_NOTES,
    ),
    Command(
        "quarantine show", "ID", "print a file of the quarantine",
        (Option("reveal", "", "show the content on a terminal, too"), *DAEMON),
        "bucketctl quarantine show 20261130T052619Z-4f1d2a90-phone-1-login.json > damaged.json",
        "commands.quarantine:show", 1, 1, notes=QUARANTINE_SHOW_NOTES,
    ),
    Command(
        "restore", "BACKUP", "store the buckets and schemas of a backup", (*SURE, *CALLS),
        "bucketctl restore /srv/backups/bucketd/20261130T052619Z --dry-run\n"
        "bucketctl restore /srv/backups/bucketd/20261130T052619Z", "commands.backup:restore", 1, 1,
        notes=RESTORE_NOTES,
    ),
    Command(
        "sweep", "", "remove buckets that were not written for long",
        (
            Option("days", "N", "last written over N days ago"),
            *FILTER[:3], *NO_TRASH, *SURE, *SILENT, *CALLS,
        ),
        "bucketctl sweep --days 90 --dry-run\n"
        "bucketctl sweep --days 30 --device 'emulator-*' --yes", "commands.sweep:sweep", most=0,
        notes=SWEEP_NOTES,
    ),
    Command(
        "usage", "", "show how much each device has stored",
        (
            Option("over", "SIZE", "only devices with more, in bytes or such as 64K or 1M"),
            *FILTER[:1], *CALLS,
        ),
        "bucketctl usage\nbucketctl usage --over 1000000 --json", "commands.sweep:usage", most=0,
        notes=USAGE_NOTES,
    ),
    Command(
        "wait", "KEY[=JSON]", "wait until the bucket has a key, or a value there",
        (
            Option("for", "TIME", "wait no longer, such as 60s, 5m or 2h (else until Ctrl-C)"),
            *RAW, *ONE_BUCKET, *REVEAL, *SILENT,
        ),
        "bucketctl wait phone-1/login loggedIn=true --for 60s -q && ./daily.sh\n"
        "code=$(bucketctl wait phone-1/login /sms/code --for 5m -r)", "commands.wait:wait", 1, 1,
        notes=WAIT_NOTES, bucket=FREE,
    ),
    Command(
        "watch", "[KEY…]", "print each change of a bucket as it happens",
        (
            *TARGET, *REVEAL,
            Option("all", "", "of all buckets that --device, --job and --automation match"),
            Option("snapshot", "", "begin with the current bucket"),
            Option("since", "ID", "continue after this event (--json shows its id)"),
            Option("holds", "", "also print who waits for a hold, takes it, and releases it"),
            Option("count", "N", "end after N lines, or on a terminal N changes"),
        ),
        "bucketctl watch phone-1/login\n"
        "bucketctl watch phone-1/login loggedIn | jq .set\n"
        "bucketctl watch --all --device 'phone-*'", "commands.watch:watch", notes=WATCH_NOTES,
        bucket=FREE,
    ),
)  # fmt: skip

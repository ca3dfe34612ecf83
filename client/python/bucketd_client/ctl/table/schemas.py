"""The table of the commands on schemas."""

from __future__ import annotations

from .daily import DAEMON, REACH, SILENT, SURE, Command, Option
from .occasional import CALLS

SCHEMA_NOTES = """\
FILE is a JSON Schema (2020-12), or the field form: {"fields": [{"name", "type", …}]};
- reads standard input. "secret": true in a field ("writeOnly": true in JSON Schema) marks a secret,
which a terminal shows as ••••."""
SCHEMA_SET_TOLERATE = """
With --tolerate, violations that stand in stored buckets do not refuse a write which leaves those
values as they are; they are told as warnings. A later schema set without --tolerate ends that."""
SCHEMA_CHECK_STATUS = """
Exit status 5: there are some; 1: a stored bucket could not be read, so it was not checked."""
SCHEMA_SET_STATUS = """
Exit status 5: stored buckets violate it, and it is not set; 1: it is set, but a stored bucket
could not be read, so it was not checked."""
TYPES_NOTES = """\
TypeScript: a .d.ts that types agent.utils.bucket without a cast. Python: a module with the bucket's
TypedDict, that of the data of set, and Bucket, AsyncBucket, agent and async_agent typed by them.
What the types cannot express is named on standard error, and they are wider there. With --watch the
file is written again whenever the schema changes, until Ctrl-C."""
SCHEMA_MIGRATE_NOTES = """\
Each bucket is changed by a JSON Patch (RFC 6902), or by CMD: a command of the shell that gets the
bucket as JSON on standard input and prints the new one, with BUCKETD_DEVICE and BUCKETD_JOB in its
environment. First all new states are computed, and the daemon checks them by NEW.json; if one
bucket is refused, nothing is changed. Then the command asks; scripts use --yes. It writes a backup
(lines of bucketctl export, mode 0600) and beside it a record of what is changed (FILE.state), sets
a schema that allows the old and the new form, changes bucket by bucket with If-Match, and sets
NEW.json. After an interruption the same command continues, and changes no bucket twice. A bucket
that is created meanwhile is changed if NEW.json refuses it. Values that a schema marks as secret
are shown as ••••. Exit status 5: NEW.json refuses a bucket; 6: others change a bucket all the time;
1: another refusal, or a bucket could not be read and was left alone."""

COMMANDS = (
    Command(
        "schema check", "AUTOMATION FILE",
        "show which stored buckets a schema would refuse, and change nothing", DAEMON,
        "bucketctl schema check login login.json", "commands.schemas:check", 2, 2,
        notes=SCHEMA_NOTES + SCHEMA_CHECK_STATUS,
    ),
    Command(
        "schema get", "AUTOMATION", "print a schema as it was given", DAEMON,
        "bucketctl schema get login > login.json", "commands.schemas:get", 1, 1,
    ),
    Command(
        "schema list", "", "list all schemas, and their problems", DAEMON,
        "bucketctl schema list", "commands.schemas:show", most=0,
    ),
    Command(
        "schema migrate", "AUTOMATION",
        "change the buckets of an automation along with its schema",
        (
            Option("to", "NEW.json", "the new schema, in either form"),
            Option("patch", "OPS.json", "change each bucket by this JSON Patch"),
            Option("run", "CMD", "change each bucket by this command"),
            Option("run-timeout", "SECONDS", "how long CMD may take for one bucket (60)"),
            Option("backup", "FILE", "write the old buckets to FILE (else named after the schema)"),
            *SURE, *SILENT, *CALLS,
        ),
        "bucketctl schema migrate login --to login-2.json --patch rename.json --dry-run\n"
        "bucketctl schema migrate login --to login-2.json \\\n"
        "    --run 'jq \".token = .sessionToken | del(.sessionToken)\"'",
        "schema_migration.migration:migrate", 1, 1, notes=SCHEMA_MIGRATE_NOTES,
    ),
    Command(
        "schema remove", "AUTOMATION", "remove a schema that was set by command",
        SILENT + DAEMON,
        "bucketctl schema remove login", "commands.schemas:remove", 1, 1,
    ),
    Command(
        "schema set", "AUTOMATION FILE", "set the schema of an automation's buckets",
        (
            Option("force", "", "also if stored buckets violate it"),
            Option("tolerate", "", "also then, and refuse later only what a write makes worse"),
            *SILENT, *DAEMON,
        ),
        "bucketctl schema set login login.json\n"
        "bucketctl schema set login login.json --tolerate", "commands.schemas:put", 2, 2,
        notes=SCHEMA_NOTES + SCHEMA_SET_TOLERATE + SCHEMA_SET_STATUS,
    ),
    Command(
        "types", "AUTOMATION", "write the types of an automation's bucket for an editor",
        (
            Option("lang", "LANGUAGE", "typescript or python"),
            Option("output", "FILE", "write there (else to standard output)"),
            Option("check", "FILE", "exit status 1 if this file is out of date; write nothing"),
            Option("watch", "", "keep the file of --output up to date with the schema"),
            *REACH,
        ),
        "bucketctl types login --lang typescript --output login.bucket.d.ts\n"
        "bucketctl types login --lang python --output login_bucket.py --watch\n"
        "bucketctl types login --lang python --check login_bucket.py", "commands.types:types", 1, 1,
        notes=TYPES_NOTES,
    ),
)  # fmt: skip

"""The table of daily commands: their options, their help, and the place of their code.

The others are in modules beside it, so that a start does not load them; ``all`` has all commands.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Callable


class Option:
    """``--name``; ``value`` is the placeholder of its argument, empty for a switch.

    The values of an option that may be given ``often`` are joined by line breaks;
    ``short`` is its one-letter form.
    """

    __slots__ = ("help", "name", "often", "short", "value")

    # NamedTuple would import typing, which takes longer than all commands here.
    def __init__(
        self, name: str, value: str, help: str, often: bool = False, short: str = ""
    ) -> None:
        self.name, self.value, self.help = name, value, help
        self.often, self.short = often, short

    @property
    def forms(self) -> str:
        """Return the option as the help shows it."""
        return ", ".join(reversed(self.words))

    @property
    def words(self) -> list[str]:
        """Return the words that give the option, the long one first."""
        return [f"--{self.name}", *([f"-{self.short}"] if self.short else [])]


# The first argument may name the bucket, as DEVICE/JOB: always; unless it has a ``=``;
# only without a bucket in the environment, since it may be a key or a file.
ALWAYS, ASSIGNMENTS, FREE = "always", "assignments", "free"


class Command:
    """One row. ``place`` is package.module:function; ``arguments`` are those of the usage line.

    ``example`` and ``notes`` may have several lines; ``needs`` and ``most`` count arguments.
    ``bucket`` tells whether the first argument may name the bucket.
    """

    def __init__(
        self,
        name: str,
        arguments: str,
        summary: str,
        options: tuple[Option, ...],
        example: str,
        place: str,
        needs: int = 0,
        most: int = 10**6,
        notes: str = "",
        bucket: str = "",
    ) -> None:
        self.name, self.arguments, self.summary, self.options = name, arguments, summary, options
        self.example, self.place, self.notes = example, place, notes
        self.needs, self.most, self.bucket = needs, most, bucket

    @property
    def place_of_bucket(self) -> str:
        """Return the part of the usage line that names the bucket."""
        return "[DEVICE/JOB]" if self.bucket else ""

    def function(self) -> Callable[[Options], int]:
        module, _, name = self.place.partition(":")
        # importlib would import warnings, and both take longer than the call.
        found: Callable[[Options], int] = getattr(
            __import__(module, globals(), None, (name,), 2), name
        )
        return found


class Options:
    """The option values by name (switches: ""), and the other words in order.

    ``command`` is the name of the command that they were given to, and ``place`` the word that was
    taken as DEVICE/JOB, if any.
    """

    def __init__(self, given: dict[str, str], arguments: list[str], command: str = "") -> None:
        self.given, self.arguments, self.command = given, arguments, command
        self.place = ""

    def get(self, name: str, default: str | None = None) -> str | None:
        return self.given.get(name, default)

    def has(self, name: str) -> bool:
        return name in self.given


REACH = (
    Option("socket", "PATH", "the daemon's socket (else $BUCKETD_SOCKET, else the usual places)"),
    Option("timeout", "SECONDS", "how long to wait (5 to reach the daemon, 30 for its response)"),
)
FORMAT = (
    Option("format", "FORMAT", "table, json, ndjson or tsv; see bucketctl --help", short="o"),
)
JSON = (Option("json", "", "print the whole response as JSON, refusals too"),)
CURL = (Option("curl", "", "print the same request as a curl command, and send nothing"),)
DAEMON = REACH + JSON + FORMAT + CURL
NAMES = (
    Option("device", "D", "name the device, as an operator", short="d"),
    Option("job", "J", "name the job (without it: the device bucket)", short="j"),
    Option("automation", "A", "name the automation whose schema applies", short="a"),
)
TARGET = (
    *NAMES,
    Option("device-bucket", "", "the bucket that all jobs on the device share"),
    *DAEMON,
)
GUARD = (Option("if-match", "ETAG", "write only if the bucket still has this ETag (get --json)"),)
QUIET = (Option("quiet", "", "print nothing, and do not have the bucket sent back", short="q"),)
# The same for commands that print something else.
SILENT = (Option("quiet", "", "print nothing when all goes well", short="q"),)
DATA = (Option("data", "OBJ", "a JSON object; - reads it from standard input"),)
RAW = (Option("raw", "", "with one KEY: print a string without its quotes", short="r"),)
REVEAL = (Option("reveal", "", "show secrets on a terminal, too, in place of ••••"),)
FILTER = (
    Option("device", "D", "only of this device; a name or a pattern", short="d"),
    Option("job", "J", "only of this job; a name or a pattern", short="j"),
    Option("automation", "A", "only of this automation; a name or a pattern", short="a"),
    Option("limit", "N", "at most N"),
)
TTL = (Option("ttl", "SECONDS", "how long the context lives (the daemon's default: a day)"),)
HOLD = (
    Option("hold", "WHAT", "hold the job or the device while the command runs: job or device"),
    Option("hold-name", "N", "hold under this name; names are independent of each other"),
    Option("wait", "SECONDS", "how long to wait for the hold (60; 0: not at all)"),
    Option("exclusive", "", "have the writes of all others refused meanwhile"),
)
LABEL = (Option("label", "TEXT", "the run's label, by which context list names it"),)
TOKEN_FILE = (Option("token-file", "", "pass the token in a file that only you may read"),)

SURE = (
    Option("dry-run", "", "show what would be done, and do nothing"),
    Option("yes", "", "do not ask"),
)
NO_TRASH = (Option("no-trash", "", "delete for good, and not into the trash"),)
CLEAR_NOTES = """\
What is cleared goes into the trash, and bucketctl trash restore brings it back: a terminal is told
how. On a terminal clear asks before it removes a device bucket that only a left-out --job names;
DEVICE/ names it without a question. With --all the names may be patterns: *, ?, [a-z] ([*] is a
star); without names all buckets are cleared, device buckets too. The command asks first; scripts
use --yes."""

SET_NOTES = """\
KEY ends at the first = of the word; a string follows = and JSON follows :=. So a key may contain
dots, slashes or blanks, or be empty; pass a key that contains = or ends in a colon with --data. A
string stays a string: n=1 sets "1", n:=1 sets 1. KEY=@FILE sets the text in a file, without its
last line break, and KEY:=@FILE the JSON in it; @- is standard input, @@ begins a string with an @.
Words override the keys of --data (or -). A schema never writes its defaults by itself: --defaults
sets those whose keys are not stored yet, in one write, unless others change the bucket meanwhile,
and names them on standard error."""
GET_NOTES = """\
With one KEY get prints its value; exit status 1 means that the bucket has no such key. With several
it prints an object with those that exist. A KEY that begins with a slash, and is not itself a key,
is a JSON Pointer to a value inside: /lastItem/id. In a job context every argument is a KEY. A
bucket that was never written is {}. On a terminal a secret is shown as •••• unless --reveal is
given; a pipe or file receives its value."""
PATCH_NOTES = """\
A JSON Merge Patch (RFC 7396) is merged into objects at every depth, and null removes a key. A JSON
Patch is applied whole or not at all: it is refused, with exit status 1, if a path is missing or a
test operation fails."""
LIST_NOTES = """\
A pattern contains *, ? or [a-z]; [*] is a star. Device buckets have no job to match. If standard
output is not a terminal, list prints one JSON array, with one bucket per line (bucketctl list |
jq '.[].job'). The table says by whom a bucket or its device is held (elsewhere: bucketctl hold
list). --where compares a key, or a JSON Pointer (/lastItem/id), by = != < <= > >=; KEY alone: the
bucket has it. VALUE is a string or JSON; a key that is absent is unequal to all. The columns are
device, job, automation, revision, size, updated, held, and /KEY or any JSON Pointer; with JSON
they are the members. Sizes, revisions and times are sorted with the largest first. A terminal
shows secrets as ••••, which are equal to no value, unless --reveal is given. Exit status 1: an
entry could not be read; it is named on standard error."""
CONTEXTS_NOTES = """\
If standard output is not a terminal, the command prints one JSON array, with one context per line
(bucketctl context list | jq '.[].id')."""
REVOKE_NOTES = """\
A running command loses its bucket with its context. With --device the command asks first; scripts
use --yes."""
NO_JOB = """\
Without --job the context opens only the device bucket: a request for the bucket of a job fails
with no_job_context."""
RUN_NOTES = f"""\
The command finds its bucket through BUCKETD_SOCKET and BUCKETD_TOKEN; it also gets
BUCKETD_DEVICE, BUCKETD_JOB, BUCKETD_AUTOMATION and BUCKETD_RUN, the label of this run: the time
of the start, the program and a number, unless --label gives another. Signals are passed on, and
the exit status is the command's: 128+n if signal n ended it, 127 not found, 126 not executable.
The context ends with the command.
{NO_JOB}
With --token-file the command gets BUCKETD_TOKEN_FILE instead, so that no environment that is
printed, logged or read in /proc contains the token. The file is removed with the context.
With --hold the command starts once the job, or the whole device, is held for it, and exit
status 1 says who holds it instead. The hold ends with the command. The clients send its fence,
BUCKETD_FENCE, with their writes. If the hold is lost before, the command gets SIGTERM, and
nothing more: until it ends, its writes are refused with hold_lost."""

COMMANDS = (
    Command(
        "clear", "", "remove the whole bucket, or all that match",
        (
            *TARGET, *GUARD, *QUIET,
            Option("all", "", "every bucket that --device, --job and --automation match"),
            *NO_TRASH, *SURE,
        ),
        "bucketctl clear phone-1/login\n"
        "bucketctl clear --all --device 'emulator-*' --dry-run", "commands.buckets:clear", most=0,
        notes=CLEAR_NOTES, bucket=ALWAYS,
    ),
    Command(
        "context create", "", "mint a job context and print its token",
        NAMES + LABEL + TTL + DAEMON,
        "bucketctl context create phone-1/login --ttl 3600\n"
        "export BUCKETD_TOKEN=$(bucketctl context create phone-1/login | jq -r .token)",
        "commands.contexts:create", most=0, notes=NO_JOB, bucket=ALWAYS,
    ),
    Command(
        "context list", "", "list all live contexts, without their tokens", DAEMON,
        "bucketctl context list", "commands.contexts:show", most=0, notes=CONTEXTS_NOTES,
    ),
    Command(
        "context revoke", "[ID]", "end a context now, or all of a device",
        (
            Option("device", "D", "all contexts of this device; a name or a pattern", short="d"),
            Option("job", "J", "only those of this job; a name or a pattern", short="j"),
            *SURE, *SILENT, *DAEMON,
        ),
        "bucketctl context revoke 44ac2528550b93f9\n"
        "bucketctl context revoke --device phone-1 --job login", "commands.contexts:revoke",
        most=1, notes=REVOKE_NOTES,
    ),
    Command(
        "get", "[KEY…]", "print the bucket, the value of one key, or several keys",
        (
            *TARGET, *REVEAL, *RAW,
            Option("default", "JSON", "with one KEY: print this if the bucket has no such key"),
            Option("defaults", "", "add the defaults of its schema for keys that it lacks"),
            Option("revision", "N", "the earlier state that this revision left (history)"),
            Option("quiet", "", "with one KEY: only the exit status tells if it exists", short="q"),
        ),
        "bucketctl get phone-1/login\n"
        "token=$(bucketctl get phone-1/login sessionToken -r)\n"
        "bucketctl get phone-1/login /lastItem/id --default null", "commands.get:get",
        notes=GET_NOTES, bucket=FREE,
    ),
    Command(
        "list", "", "list all stored buckets",
        (
            *FILTER,
            Option("where", "KEY=VALUE", "only where a value is so (may be repeated)", True),
            Option("stale", "DURATION", "only those that were not written for so long: 90s, 2d"),
            Option("sort", "COLUMN", "sort by a column or a value; -COLUMN turns it round"),
            Option("columns", "NAMES", "show these columns, separated by commas; /KEY: a value"),
            *REVEAL, *DAEMON,
        ),
        "bucketctl list --device 'phone-*' --job 'log[io]*'\n"
        "bucketctl list --where loggedIn=false --stale 2d\n"
        "bucketctl list --sort size --columns device,job,size,/lastItem/id",
        "commands.overview:show",
        most=0, notes=LIST_NOTES,
    ),
    Command(
        "patch", "[-]", "change the bucket by a JSON Merge Patch, or a JSON Patch",
        (
            Option("json-patch", "", "the data is a JSON Patch (RFC 6902): an array of operations"),
            *TARGET, *REVEAL, *GUARD, *QUIET,
            Option("data", "JSON", "the patch; - reads it from standard input"),
        ),
        "echo '{\"user\": {\"name\": \"ada\", \"old\": null}}' | bucketctl patch phone-1/login -\n"
        "bucketctl patch phone-1/login --json-patch \\\n"
        "    --data '[{\"op\": \"add\", \"path\": \"/log/-\", \"value\": 1}]'",
        "commands.buckets:patch", most=1, notes=PATCH_NOTES, bucket=ALWAYS,
    ),
    Command(
        "replace", "[-]", "replace the whole bucket", TARGET + REVEAL + GUARD + QUIET + DATA,
        "bucketctl replace phone-1/login --data '{\"loggedIn\": false}'\n"
        "bucketctl replace phone-1/login - < bucket.json",
        "commands.buckets:replace", most=1, bucket=ALWAYS,
    ),
    Command(
        "run", "-- COMMAND…", "run a command in its own job context",
        NAMES + LABEL + TTL + TOKEN_FILE + HOLD + REACH,
        "bucketctl run phone-1/login -- python3 automation.py\n"
        "bucketctl run -d phone-1 -j daily --hold device --wait 0 -- ./daily.sh",
        "commands.run:run", 1,
        notes=RUN_NOTES, bucket=ALWAYS,
    ),
    Command(
        "set", "[KEY=TEXT | KEY:=JSON | -]…", "set keys, keep all others; print the whole bucket",
        (
            *TARGET, *REVEAL, *GUARD, *QUIET, *DATA,
            Option("defaults", "", "also set the defaults of its schema for keys that it lacks"),
        ),
        "bucketctl set phone-1/login sessionToken=s3cr3t loggedIn:=true\n"
        "bucketctl set phone-1/login sessionToken=@token.txt storage:=@state.json\n"
        "echo '{\"loggedIn\": true}' | bucketctl set phone-1/login -",
        "commands.buckets:set_keys", notes=SET_NOTES, bucket=ASSIGNMENTS,
    ),
    Command(
        "status", "", "show the status of the daemon",
        (
            Option("settings", "", "only the settings in force, each with its source"),
            Option("verbose", "", "all that the daemon tells", short="v"),
            *DAEMON,
        ),
        "bucketctl status\nbucketctl status -v\nbucketctl status --settings",
        "commands.status:status", most=0,
    ),
    Command(
        "unset", "KEY…", "remove keys, keep all others", TARGET + REVEAL + GUARD + QUIET,
        "bucketctl unset phone-1/login sessionToken", "commands.buckets:unset", 1, bucket=FREE,
    ),
)  # fmt: skip

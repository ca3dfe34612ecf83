"""The table of the commands on what was: history, undo, trash."""

from __future__ import annotations

from .daily import ALWAYS, DAEMON, FILTER, GUARD, QUIET, REVEAL, SURE, TARGET, Command, Option
from .occasional import CALLS

HISTORY_NOTES = """\
The newest change comes first, by the number of its revision. BY is the user, RUN the label of the
context (bucketctl run --label), UNDOES the revision that this one has taken back. The daemon keeps
64 changes of a bucket, up to 256 KiB ([history]). If standard output is not a terminal, the command
prints one JSON array, with one change per line; --values adds "before", the earlier values of the
keys. On a terminal a secret is shown as •••• unless --reveal is given."""
UNDO_NOTES = """\
undo makes a new revision: the keys that the change set get their earlier values or vanish, and the
keys that it removed return. So an undo can be undone. If a later change has touched one of these
keys, nothing is changed, exit status 1, and the message names the keys. A bucket that was cleared
returns from the trash."""
EMPTY_NOTES = """\
Without an ID everything that --device, --job and --automation match is deleted for good, so the
command asks first; scripts use --yes."""
TRASH_NOTES = """\
The newest deletion comes first, with who made it. Values are not shown. EXPIRES says when a bucket
is deleted for good ([trash] days of the daemon). If standard output is not a terminal, the command
prints one JSON array, with one bucket per line. Exit status 1: an entry could not be read; it is
named on standard error."""
TRASH_RESTORE_NOTES = """\
The bucket gets a revision and an ETag that it never had. The command refuses if a bucket is stored
in its place by now."""

COMMANDS = (
    Command(
        "history", "", "show who changed a bucket, when, and which keys",
        (
            Option("limit", "N", "only the newest N changes"),
            Option("values", "", "with the values before, and on a terminal after"),
            *TARGET, *REVEAL,
        ),
        "bucketctl history phone-1/login\nbucketctl history phone-1/login --limit 1 --values",
        "commands.history:history", most=0, notes=HISTORY_NOTES, bucket=ALWAYS,
    ),
    Command(
        "trash empty", "[ID…]", "delete buckets in the trash for good, all or some",
        (*FILTER[:3], *SURE, *CALLS),
        "bucketctl trash empty 01a22b0b85b9e576b46a9bfc\n"
        "bucketctl trash empty --device 'emulator-*' --dry-run", "commands.trash:empty",
        notes=EMPTY_NOTES,
    ),
    Command(
        "trash list", "", "list the deleted buckets that can be restored", (*FILTER, *DAEMON),
        "bucketctl trash list\nbucketctl trash list --device phone-1", "commands.trash:show",
        most=0, notes=TRASH_NOTES,
    ),
    Command(
        "trash restore", "ID", "bring a deleted bucket back", DAEMON,
        "bucketctl trash restore 01a22b0b85b9e576b46a9bfc", "commands.trash:restore", 1, 1,
        notes=TRASH_RESTORE_NOTES,
    ),
    Command(
        "undo", "[REVISION]", "take one change of a bucket back, the last if none is named",
        (*TARGET, *REVEAL, *GUARD, *QUIET),
        "bucketctl undo phone-1/login\nbucketctl undo phone-1/login 7", "commands.history:undo",
        most=1, notes=UNDO_NOTES, bucket=ALWAYS,
    ),
)  # fmt: skip

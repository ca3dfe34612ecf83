"""The manual page of the settings, bucketd.toml(5), from the sections and config/bucketd.toml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bucketd_client.ctl.commands.man import line, plain

from bucketd import __version__
from bucketd.settings import sections

INTRODUCTION = """\
Settings are TOML: a [section], and below it lines KEY = VALUE. The file of a host's daemon (root,
or systemd) is /etc/bucketd/bucketd.toml, that of a user's is $XDG_CONFIG_HOME/bucketd/bucketd.toml,
unless --config names another. Files in bucketd.d/*.toml beside it override it, the last name
first. A variable BUCKETD_SECTION_KEY overrides the files, and a flag the variable. The file that
is installed has each setting commented out, with its default; only the operators are set.
`bucketd --check-config` shows what a start would use, and from where; `bucketctl status --settings`
shows what the running daemon uses. `systemctl reload bucketd` puts changes in force, but for the
sections that say otherwise; it fails for a file that cannot be used, and the old settings stay."""
EXAMPLE = """\
# /etc/bucketd/bucketd.d/10-farm.toml
[access]
operator_users = ["ada", "bob"]

[limits]
max_bucket_bytes = 4194304

[store]
journal_bytes = 16777216"""


def settings_page(defaults: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """Return the page; both maps are by "section.key"."""
    return "\n".join(_lines(defaults, reasons)) + "\n"


def _lines(defaults: Mapping[str, Any], reasons: Mapping[str, str]) -> Iterator[str]:
    yield r".\" Made by `make docs`; change the code, not this page."
    yield f'.TH BUCKETD.TOML 5 "" "bucketd {__version__}" "File Formats"'
    yield from (".SH NAME", r"bucketd.toml \- the settings of bucketd")
    yield from (".SH DESCRIPTION", *map(line, INTRODUCTION.split("\n")))
    for section in sections.SECTIONS:
        yield f".SH [{plain(section)}]"
        if section.replace(".", "_") in sections.AT_START:
            yield "Changes take effect at the next start."
        for name, value in defaults.items():
            if name.rpartition(".")[0] == section:
                plain_value = list(value) if isinstance(value, tuple) else value
                yield from (".TP", f".B {plain(name.rpartition('.')[2])}")
                yield f"{line(reasons[name])} Default: {plain(json.dumps(plain_value))}."
    yield from (".SH EXAMPLES", ".nf", *map(line, EXAMPLE.split("\n")), ".fi")
    yield from (".SH SEE ALSO", ".BR bucketd (8),", ".BR bucketd (7),", ".BR bucketctl (1)")

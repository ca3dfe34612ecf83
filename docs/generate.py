"""Generate the pages of docs/ that come from the code: ``make docs`` writes them.

errors.md     every code, from the two trees of exceptions and the maps that use them
settings.md   every setting, from the sections and the comments in config/bucketd.toml
routes.md     every route, from the table of routes and openapi.json
commands.md   every command, from the parsers' own help
metrics.md    every metric, from the collector

Beside them systemd/bucketd.toml.5, the manual page of the settings.

The clients' tables of error codes are made, too: client_codes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import client_codes
import codes
import manual
from bucketd_client.ctl import parser
from bucketd_client.ctl.commands import man
from bucketd_client.ctl.table.all import every
from tables import table

from bucketd import __main__ as program
from bucketd import metrics
from bucketd.api import routes
from bucketd.settings import loader, sections
from bucketd.stats import Histogram, RequestCounter

DOCS = Path(__file__).parent
REPO = DOCS.parent
CONFIG = REPO / "config" / "bucketd.toml"
NOTE = "<!-- Made by `make docs`; change the code, not this page. -->"


def pages() -> dict[str, str]:
    """Return the text of each generated page by its file name in docs/."""
    makers: tuple[Callable[[], Iterator[str]], ...] = (_settings, _routes, _commands, _metrics)
    made = {maker.__name__[1:]: maker() for maker in makers} | {"errors": codes.page()}
    return {f"{name}.md": "\n".join([NOTE, *lines]) + "\n" for name, lines in made.items()}


def manual_pages() -> dict[str, str]:
    """Return the text of each generated manual page by its path."""
    return {"systemd/bucketd.toml.5": manual.settings_page(defaults(), reasons())}


# --- settings


def reasons() -> dict[str, str]:
    """Return by "section.key" the comment in config/bucketd.toml; neighbours may share one."""
    found: dict[str, str] = {}
    section, lines, fresh = "", [], True
    for line in CONFIG.read_text().splitlines():
        key = re.match(r"(?:# )?(\w+) = ", line)
        if heading := re.match(r"\[(.+)\]", line):
            section, lines = heading[1], []
        elif key:
            found[f"{section}.{key[1]}"] = " ".join(lines)
            fresh = True
        elif line.startswith("#"):
            lines = [*([] if fresh else lines), line[1:].strip()]
            fresh = False
    return found


def defaults() -> dict[str, Any]:
    """Return by "section.key" the default for a host's daemon."""
    system = {"STATE_DIRECTORY": "", "RUNTIME_DIRECTORY": ""}
    return sections.in_force(loader.load({}, "/dev/null", system))


def _settings() -> Iterator[str]:
    why = reasons()
    yield from ("# Settings", "")
    yield "A flag overrides the variable, which overrides drop-ins in `bucketd.d/*.toml`, which"
    yield "override the file: `/etc/bucketd/bucketd.toml` for a host's daemon (root, or systemd),"
    yield "`$XDG_CONFIG_HOME/bucketd/bucketd.toml` for a user's, or the file that `--config` names."
    yield "`bucketd --check-config` shows the settings that a start would use, and"
    yield "`bucketctl status --settings` those of the running daemon, each with its source. To"
    yield "reload them, run `systemctl reload bucketd` or send `SIGHUP`."
    for section in sections.SECTIONS:
        mine = {n: v for n, v in defaults().items() if n.rpartition(".")[0] == section}
        when = "at a start" if section.replace(".", "_") in sections.AT_START else "at a reload"
        yield from ("", f"## [{section}]", "", f"Changes take effect {when}.", "")
        yield from table(
            ("key", "default", "variable", "what it is for"),
            (_setting(name, value, why[name]) for name, value in mine.items()),
        )


def _setting(name: str, value: Any, why: str) -> tuple[str, ...]:
    plain = list(value) if isinstance(value, tuple) else value
    variable = "BUCKETD_" + name.replace(".", "_").upper()
    return f"`{name.rpartition('.')[2]}`", f"`{json.dumps(plain)}`", f"`{variable}`", why


# --- routes


def _routes() -> Iterator[str]:
    whole = json.loads((REPO / "bucketd" / "api" / "openapi.json").read_text())
    yield from ("# Routes", "")
    yield "The daemon serves HTTP/1.1 with JSON on a unix socket. `GET /v1/openapi.json` describes"
    yield "the same routes to programs, with the schema of every body. Names in paths are"
    yield "percent-encoded. A route with `GET` also accepts `HEAD`. [errors.md](errors.md) explains"
    yield "the error responses."
    rules = dict.fromkeys(route.access for route in routes.ROUTES)
    for rule in rules:
        yield from ("", f"## For {rule.__name__.replace('_', ' ')}", "")
        yield from ((rule.__doc__ or "").strip(), "")
        yield from table(
            ("route", "does", "takes", "answers"),
            (_route(whole, route) for route in routes.ROUTES if route.access is rule),
        )
    yield from ("", "## Parameters", "")
    given = [p for p in whole["components"]["parameters"].values() if "description" in p]
    yield from table(
        ("name", "in", "means"), ((f"`{p['name']}`", p["in"], p["description"]) for p in given)
    )


def _route(whole: Any, route: routes.Route) -> tuple[str, ...]:
    operation = whole["paths"][route.path][route.method.lower()]
    does = f"{operation['summary']}. {operation.get('description', '')}".strip()
    taken = [f"`?{name}=`" for name in route.parameters.split()]
    taken += [f"`{kind}`" for kind in operation.get("requestBody", {}).get("content", {})]
    answers = ", ".join(sorted(operation["responses"]))
    return f"`{route.method} {route.path}`", does, "<br>".join(taken) or "–", answers


# --- commands


def _commands() -> Iterator[str]:
    yield from ("# Commands", "", "## bucketd", "", "```")
    for action in program.parser()._actions:
        name = ", ".join(action.option_strings) or f"[{'|'.join(action.choices or ())}]"
        yield f"  {f'{name} {action.metavar or str()}':<24} {action.help}"
    yield from ("```", "", "## bucketctl", "", *_help([]), "", "### Environment", "")
    yield from table(("variable", "meaning"), ((f"`{n}`", m) for n, m in man.ENVIRONMENT))
    for command in every():
        yield from ("", f"## bucketctl {command.name}", "", *_help(command.name.split()))


def _help(words: list[str]) -> Iterator[str]:
    try:
        parser.parse([*words, "--help"])
    except parser.Help as text:
        yield from ("```", str(text), "```")


# --- metrics


class _Everything(dict[str, Any]):
    """A status document in which every number is 0."""

    def get(self, _name: str, _default: Any = None) -> _Everything:
        return self

    def __missing__(self, _name: str) -> str:
        return ""

    def __float__(self) -> float:
        return 0.0


def _metrics() -> Iterator[str]:
    requests = RequestCounter()
    requests.add(("/", "GET"), 200, 0.0)
    histograms = {name: Histogram() for name in metrics.HISTOGRAMS}
    collector = metrics.Collector(_Everything(), requests, histograms)
    yield from ("# Metrics", "")
    yield "`GET /metrics` returns these to operators, in Prometheus' text format. A dashboard and"
    yield "alert rules for them are in [config/monitoring](../config/monitoring)."
    yield ""
    rows = sorted(collector.collect(), key=lambda family: family.name)
    yield from table(("metric", "type", "labels", "tells"), map(_metric, rows))


def _metric(family: Any) -> tuple[str, ...]:
    suffix = "_total" if family.type == "counter" else ""
    labels = dict.fromkeys(name for s in family.samples for name in s.labels if name != "le")
    shown = ", ".join(f"`{name}`" for name in labels) or "–"
    return f"`{family.name}{suffix}`", family.type, shown, family.documentation


if __name__ == "__main__":
    for _name, _text in pages().items():
        (DOCS / _name).write_text(_text)
        sys.stdout.write(f"docs/{_name}\n")
    for _name, _text in (client_codes.files() | manual_pages()).items():
        (REPO / _name).write_text(_text)
        sys.stdout.write(f"{_name}\n")

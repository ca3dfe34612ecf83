"""The command ``bucketd``: read flags and settings, and run the daemon."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys

import uvloop

from . import __version__, logs, process  # isort: split

from .daemon import Daemon, Unreachable, operators
from .server import SocketError
from .settings import loader
from .settings.sections import LEVELS, Settings, SettingsError, changed, in_force
from .startup import StartError
from .systemd import InheritedSocketError, Manager

_FLAGS = {
    "state_dir": "paths.state_dir",
    "runtime_dir": "paths.runtime_dir",
    "socket": "socket.path",
    "log_level": "log.level",
}


def main(argv: list[str] | None = None) -> int:
    """Run the daemon and return the exit status: 0 after a stop signal, 1 on failure, 2 usage."""
    options = _options(argv)
    process.prepare()
    try:
        settings = _load(options)
        if options.check_config:
            return 0 if options.quiet else _print_settings(settings, options.changed)
        logs.configure(settings.log, os.environ)
        manager = Manager.from_environ(os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Daemon(settings, lambda: _load(options), manager).run())
    except (InheritedSocketError, SettingsError, SocketError, StartError, Unreachable) as error:
        print(f"bucketd: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="bucketd",
        allow_abbrev=False,
        description="Keeps one durable JSON bucket per (device, job) and serves it on a unix "
        "socket. Settings: flag, then BUCKETD_<SECTION>_<KEY>, then file, then default.",
    )
    parser.add_argument("command", nargs="?", choices=["serve"], help="the default")
    parser.add_argument("--config", metavar="FILE", help="settings, in TOML")
    parser.add_argument("--state-dir", metavar="DIR", help="where the buckets are kept")
    parser.add_argument("--runtime-dir", metavar="DIR", help="where socket and contexts are kept")
    parser.add_argument("--socket", metavar="PATH", help="default: bucketd.sock in --runtime-dir")
    parser.add_argument("--log-level", metavar="LEVEL", help=", ".join(LEVELS))
    parser.add_argument(
        "--unsafe-filesystem",
        action="store_true",
        help="accept a state directory where a power cut may cost acknowledged writes",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="show what is in force, and end"
    )
    parser.add_argument(
        "--changed", action="store_true", help="with --check-config: only what is not the default"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="with --check-config: show only what is wrong"
    )
    parser.add_argument("--version", action="version", version=f"bucketd {__version__}")
    return parser


def _options(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with a usage error for options that have no effect."""
    commands = parser()
    options = commands.parse_args(argv)
    if (options.changed or options.quiet) and not options.check_config:
        commands.error("cannot use --changed or --quiet without --check-config")
    return options


def _load(options: argparse.Namespace) -> Settings:
    given = ((key, getattr(options, name)) for name, key in _FLAGS.items())
    flags = {key: text for key, text in given if text is not None}
    if options.unsafe_filesystem:
        flags["store.unsafe_filesystem"] = "true"
    settings = loader.load(flags, options.config, os.environ)
    operators(settings)
    return settings


def _print_settings(settings: Settings, only_changed: bool) -> int:
    """Print the settings in force as TOML, which is a valid settings file."""
    names = changed(settings) if only_changed else in_force(settings)
    for name, value in names.items():
        shown = json.dumps(value, ensure_ascii=False)
        print(f"{name} = {shown}  # {settings.origins.get(name, 'default')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command ``bucketd``: flags and settings in, a running daemon out."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import resource
import sys

import uvloop

from . import __version__, logs, process  # noqa: F401  (that comes before all that it is for)
from .daemon import Daemon, operators
from .server import SocketError
from .settings import loader
from .settings.sections import LEVELS, Settings, SettingsError, in_force
from .startup import StartError
from .systemd import HandoverError, Manager

_FLAGS = {
    "state_dir": "paths.state_dir",
    "runtime_dir": "paths.runtime_dir",
    "socket": "socket.path",
    "log_level": "log.level",
}

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h


def main(argv: list[str] | None = None) -> int:
    """Run the daemon; the exit status: 0 stopped as told, 1 could not start, 2 usage."""
    options = parser().parse_args(argv)
    os.umask(0o022)  # modes are given where files are made; a stricter umask would break them
    _hold_standard_streams()
    _leave_no_core_dump()
    _give_back_memory()
    try:
        settings = _load(options)
        if options.check_config:
            return _print_settings(settings)
        logs.to_stderr(settings.log.level, os.environ)
        manager = Manager.from_environ(os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Daemon(settings, lambda: _load(options), manager).run())
    except (HandoverError, SettingsError, SocketError, StartError) as error:
        print(f"bucketd: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command takes, and its help."""
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
    parser.add_argument("--version", action="version", version=f"bucketd {__version__}")
    return parser


def _load(options: argparse.Namespace) -> Settings:
    given = ((key, getattr(options, name)) for name, key in _FLAGS.items())
    flags = {key: text for key, text in given if text is not None}
    if options.unsafe_filesystem:
        flags["store.unsafe_filesystem"] = "true"
    settings = loader.load(flags, options.config, os.environ)
    operators(settings)
    return settings


def _hold_standard_streams() -> None:
    """Where a standard stream is closed, no file of ours may get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


def _give_back_memory() -> None:
    """Have the C library return large buffers at once, and not keep them for each thread.

    Else what was busy for a moment stays in use for good.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_THRESHOLD, 256 * 1024)
        libc.mallopt(_M_ARENA_MAX, 2)


def _leave_no_core_dump() -> None:
    """A core dump would hold buckets, and tokens that are just being checked."""
    # Where dumps go to a program, the kernel minds no limit but 1, which refuses those, too.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def _print_settings(settings: Settings) -> int:
    """As TOML, so that it may be kept as a file."""
    for name, value in in_force(settings).items():
        shown = json.dumps(value, ensure_ascii=False)
        print(f"{name} = {shown}  # {settings.origins.get(name, 'default')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

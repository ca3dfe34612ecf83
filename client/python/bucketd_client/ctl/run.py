"""``bucketctl run``: a command in a job context of its own, which ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from .._errors import BucketError
from .commands import Options
from .contexts import mint
from .parser import Usage
from .session import Session

PASSED_ON = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
SENT_BY_KERNEL = 128  # si_code of a signal that a terminal raised: the child got it as well


def run(options: Options) -> int:
    """The exit status of the command; 128+n where signal n ended it, 127 or 126 like a shell."""
    if options.get("device") is None:
        raise Usage("cannot run: name the context with --device D --job J")
    session = Session(options)
    context = mint(session).members
    # From before the child is there until it has ended: none may slip in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    try:
        return _run_child(options.arguments, _environment(session, context))
    finally:
        _revoke(session, str(context["id"]))


def _environment(session: Session, context: dict[str, str | None]) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if k not in _OURS}
    environ["BUCKETD_SOCKET"] = os.path.abspath(session.path)
    environ["BUCKETD_TOKEN"] = str(context["token"])
    for name in ("device", "job", "automation"):
        value = context[name]
        if value is not None:
            environ[f"BUCKETD_{name.upper()}"] = value
    return environ


_OURS = {
    *("BUCKETD_SOCKET", "BUCKETD_TOKEN", "BUCKETD_TOKEN_FILE"),
    *("BUCKETD_DEVICE", "BUCKETD_JOB", "BUCKETD_AUTOMATION"),
}


def _run_child(command: list[str], environ: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env=environ, preexec_fn=_unblock)  # noqa: PLW1509
    except FileNotFoundError:
        print(f"bucketctl: cannot run {command[0]}: command not found", file=sys.stderr)
        return 127
    except OSError as problem:
        print(f"bucketctl: cannot run {command[0]}: {problem.strerror}", file=sys.stderr)
        return 126
    while child.poll() is None:
        arrived = signal.sigwaitinfo({*PASSED_ON, signal.SIGCHLD})
        by_terminal = arrived.si_code == SENT_BY_KERNEL
        if arrived.si_signo != signal.SIGCHLD and not by_terminal:
            child.send_signal(arrived.si_signo)
    status = child.returncode
    return 128 - status if status < 0 else status


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*PASSED_ON, signal.SIGCHLD})


def _revoke(session: Session, context_id: str) -> None:
    try:
        session.call("DELETE", f"/v1/contexts/{context_id}")
    except BucketError as problem:
        print(
            f"bucketctl: the context was not revoked and ends by itself: {problem}",
            file=sys.stderr,
        )

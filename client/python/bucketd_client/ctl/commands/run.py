"""``bucketctl run``: run a command in its own job context, which ends with the command."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..._errors import BucketError, NotFound
from .. import output
from ..parser import Usage
from ..run_label import run_label
from ..session import Session
from ..table.daily import Options
from .contexts import mint
from .run_hold import Holding

FORWARDED = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
ENDING = FORWARDED - {signal.SIGUSR1, signal.SIGUSR2}
FROM_KEYBOARD = {signal.SIGINT, signal.SIGQUIT}
# The si_code of a signal that a terminal raised.
SENT_BY_KERNEL = 128
# The command is told this about its context.
_INFORMATION = {
    "BUCKETD_DEVICE": "device",
    "BUCKETD_JOB": "job",
    "BUCKETD_AUTOMATION": "automation",
    "BUCKETD_RUN": "label",
}
_OURS = {
    *("BUCKETD_SOCKET", "BUCKETD_TOKEN", "BUCKETD_TOKEN_FILE"),
    *("BUCKETD_FENCE", "BUCKETD_HOLD"),
    *_INFORMATION,
}


def run(options: Options) -> int:
    """Return the exit status of the command; 128+n after signal n, 127 or 126 like a shell."""
    if options.get("device") is None:
        raise Usage("cannot run: name the context with --device D --job J")
    session = Session(options)
    # Wait for the daemon and for the hold here, where Ctrl-C still ends the wait.
    holding = Holding(session)
    session.reach()
    with holding:
        return _run_in_context(session, holding)


def _run_in_context(session: Session, holding: Holding) -> int:
    options = session.options
    # No signal may end this process between the creation of the context and its revocation.
    mask: set[int] = signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
    # A SIGCHLD that was inherited as ignored would never arrive.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    context = mint(session, run_label(options.arguments)).members
    try:
        if early := ENDING & set(signal.sigpending()):
            return 128 + int(min(early))
        with _token_for(options, str(context["token"])) as token:
            environ = _environment(session, context, {**token, **holding.environ})
            return _run_child(options.arguments, environ, mask, holding)
    finally:
        _revoke(session, str(context["id"]))


@contextmanager
def _token_for(options: Options, token: str) -> Iterator[dict[str, str]]:
    """Yield the variable that passes the token, or with ``--token-file`` the path of its file."""
    if not options.has("token-file"):
        yield {"BUCKETD_TOKEN": token}
        return
    from tempfile import TemporaryDirectory

    # Only this user may enter the directory, which is in memory if possible.
    with TemporaryDirectory(prefix="bucketd-", dir=os.environ.get("XDG_RUNTIME_DIR")) as home:
        path = os.path.join(home, "token")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
        yield {"BUCKETD_TOKEN_FILE": path}


def _environment(
    session: Session, context: dict[str, str | None], given: dict[str, str]
) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if k not in _OURS}
    environ["BUCKETD_SOCKET"] = os.path.abspath(session.path)
    environ |= given
    for variable, name in _INFORMATION.items():
        if (value := context.get(name)) is not None:
            environ[variable] = value
    return environ


def _run_child(
    command: list[str], environ: dict[str, str], mask: set[int], holding: Holding
) -> int:
    def restore() -> None:
        # Python's own handler would swallow a Ctrl-C between here and exec.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        child = subprocess.Popen(command, env=environ, preexec_fn=restore)  # noqa: PLW1509
    except FileNotFoundError:
        output.warn(f"cannot run {command[0]}: command not found")
        return 127
    except OSError as problem:
        output.warn(f"cannot run {command[0]}: {problem.strerror}")
        return 126
    holding.end_with_loss(child)
    while not _has_ended(child):
        arrived = signal.sigwaitinfo({*FORWARDED, signal.SIGCHLD})
        if arrived.si_signo != signal.SIGCHLD and not _child_has_received(child.pid, arrived):
            child.send_signal(arrived.si_signo)
    status = child.returncode
    return 128 - status if status < 0 else status


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Reap every process that has ended; report whether the command is among them.

    As process 1 of a container, bucketctl inherits all orphans, and has to reap them.
    """
    while child.poll() is None:
        with suppress(ChildProcessError):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return False
            if ended.si_pid != child.pid:
                os.waitpid(ended.si_pid, 0)
    return True


def _child_has_received(child: int, arrived: signal.struct_siginfo) -> bool:
    """Report whether the terminal has sent a signal to the child as well, in the same group.

    A hang-up may be sent to the leader of the session alone.
    """
    from_keyboard = arrived.si_code == SENT_BY_KERNEL and arrived.si_signo in FROM_KEYBOARD
    return from_keyboard and os.getpgid(child) == os.getpgrp()


def _revoke(session: Session, context_id: str) -> None:
    try:
        session.call("DELETE", f"/v1/contexts/{context_id}")
    except NotFound:
        # The context has expired, or was revoked, before the command ended.
        pass
    except BucketError as problem:
        output.warn(f"cannot revoke the context, which expires by itself: {problem}")

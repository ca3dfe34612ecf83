"""The hold of ``bucketctl run --hold``, which lasts as long as its command."""

from __future__ import annotations

import os
import subprocess

from .. import output
from ..parser import Usage
from ..session import Session

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from types import TracebackType

    from ..._held_bucket import HeldBucket

WAIT_SECONDS = 60.0
_KINDS = ("job", "device")


class Holding:
    """Hold what ``--hold`` names, or nothing without it, while the block runs.

    ``environ`` has the variables for the command: the fence of the hold, and of a hold around it.
    """

    def __init__(self, session: Session) -> None:
        options = session.options
        self._kind = _checked_kind(session)
        self._child: subprocess.Popen[bytes] | None = None
        self._hold: HeldBucket | None = None
        device, job = options.get("device"), options.get("job")
        if self._kind is not None:
            # The import is late, since most runs hold nothing.
            from ..._bucket import Bucket

            bucket: Bucket = Bucket(
                device=device,
                job=job if self._kind == "job" else None,
                socket=session.path,
                timeout=session.timeout,
            )
            self._hold = bucket.hold(
                options.get("hold-name") or "",
                wait=_wait(options.get("wait")),
                exclusive=options.has("exclusive"),
                label=f"bucketctl run {output.plain(os.path.basename(options.arguments[0]))}"[:256],
                on_lost=self._on_lost,
            )
        # The fence of a hold around this one, as in a script that is run with --hold itself.
        self._outer = session.scope().fence

    def __enter__(self) -> Holding:
        if self._hold is not None:
            self._hold.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._hold is not None:
            self._hold.release()

    @property
    def environ(self) -> dict[str, str]:
        mine = None if self._hold is None else self._hold.fence
        fences = [fence for fence in (self._outer, mine) if fence is not None]
        if not fences:
            return {}
        # All of these fences are good for this.
        kinds = {self._kind, os.environ.get("BUCKETD_HOLD") if self._outer else None} - {None}
        kind = "device" if kinds == {"device"} else "job"
        return {"BUCKETD_FENCE": ", ".join(fences), "BUCKETD_HOLD": kind}

    def end_with_loss(self, child: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM to the command once the hold is lost, also if it is lost already."""
        self._child = child
        if self._hold is not None and self._hold.lost:
            child.terminate()

    def _on_lost(self) -> None:
        """Run in the thread that keeps the hold."""
        assert self._hold is not None  # noqa: S101  (the hold itself calls)
        output.warn(f"{self._hold.loss}; the command gets SIGTERM")
        if self._child is not None:
            self._child.terminate()


def _checked_kind(session: Session) -> str | None:
    """Return what to hold. Raise Usage for options that do not fit together."""
    options = session.options
    kind = options.get("hold")
    if kind is None:
        for name in ("hold-name", "wait", "exclusive"):
            if options.has(name):
                raise Usage(f"cannot use --{name}: it goes with --hold job or --hold device")
        return None
    if kind not in _KINDS:
        raise Usage(f"cannot hold {kind!r}: it must be job or device")
    if kind == "job" and options.get("job") is None:
        raise Usage("cannot hold the job: name it with --job J, or use --hold device")
    return kind


def _wait(text: str | None) -> float:
    try:
        return WAIT_SECONDS if text is None else float(text)
    except ValueError:
        raise Usage(f"cannot use --wait {text}: it must be a number of seconds") from None

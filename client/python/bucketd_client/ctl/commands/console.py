"""``bucketctl console``: serve the page on loopback, until nobody uses it or its terminal ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from ..._errors import BucketError
from .. import output
from ..console import pages
from ..console.invitation import RedirectFile, can_open_browser, ssh_command
from ..console.keys import TICKET_SECONDS, Keys
from ..console.server import Server
from ..parser import Usage
from ..session import Session
from ..table.daily import Options

_ENDS = ("SIGINT", "SIGTERM", "SIGHUP")


def console(options: Options) -> int:
    session, port = Session(options), _port(options)
    files = pages.load()
    # Whoever is no operator of the daemon gets its words now, and no page of refusals.
    session.call("GET", "/v1/status")
    return asyncio.run(_Console(session, options, files).run(port))


def _port(options: Options) -> int:
    text = options.get("port", "0") or ""
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65536 and len(text) < 6):
        raise Usage(f"cannot use --port {text}: it must be a number from 1 to 65535, or 0 for any")
    return int(text)


class _Console:
    """One run of the command."""

    def __init__(
        self, session: Session, options: Options, files: dict[str, tuple[str, bytes]]
    ) -> None:
        self._server = Server(session, Keys(options.has("read-only")), files)
        self._opens_browser = not options.has("no-browser") and can_open_browser()
        self._redirect: RedirectFile | None = None
        self._invites: asyncio.Future[None] | None = None
        self._why = "it was interrupted"
        self._ended = asyncio.Event()

    async def run(self, port: int) -> int:
        try:
            await self._server.listen(port)
        except OSError as cause:
            why = (cause.strerror or str(cause)).lower()
            raise BucketError(
                f"cannot listen on 127.0.0.1:{port}: {why}; choose another --port"
            ) from None
        self._listen_to_signals()
        self._listen_to_terminal()
        self._invite()
        idle = asyncio.ensure_future(self._end_when_idle())
        try:
            await self._ended.wait()
        finally:
            idle.cancel()
            if self._invites is not None:
                self._invites.cancel()
            if self._redirect is not None:
                self._redirect.remove()
            await self._server.close()
        with contextlib.suppress(OSError):
            output.warn(f"the console has ended: {self._why}", before="")
        return 0

    def _end(self, why: str) -> None:
        self._why = why
        self._ended.set()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in _ENDS:
            number = getattr(signal, name)
            # nohup ignores SIGHUP, and means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                why = "its terminal has gone" if name == "SIGHUP" else "it was interrupted"
                loop.add_signal_handler(number, self._end, why)

    def _listen_to_terminal(self) -> None:
        """End with the terminal; open another page at each Enter."""
        if sys.stdin is not None and sys.stdin.isatty():
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read_terminal)

    def _read_terminal(self) -> None:
        try:
            data = os.read(sys.stdin.fileno(), 1024)
        except OSError:
            data = b""
        if data:
            self._invite()
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._end("its terminal has gone")

    def _invite(self) -> None:
        """Open a page in a browser where there is one, and tell how to open it elsewhere."""
        if self._invites is not None:
            self._invites.cancel()
        self._invites = asyncio.ensure_future(self._invite_once())

    async def _invite_once(self) -> None:
        self._server.page_opened.clear()
        is_open = False
        if self._opens_browser:
            self._redirect = self._redirect or RedirectFile()
            loop = asyncio.get_running_loop()
            is_open = await loop.run_in_executor(None, self._redirect.open, self._server.link())
        if is_open:
            output.write(f"The console is at {self._server.url}, and opens in your browser.")
        else:
            self._print_link()
        if sys.stdin is not None and sys.stdin.isatty():
            output.write("Press Enter to open another page, Ctrl-C to end.")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._server.page_opened.wait(), TICKET_SECONDS)
        if self._redirect is not None:
            self._redirect.clear()

    def _print_link(self) -> None:
        forward = ssh_command(self._server.port)
        if forward is not None:
            output.write("On your own machine, forward the port of the console:")
            output.write(f"  {forward}")
        output.write(f"Open this link, once, within {TICKET_SECONDS / 60:.0f} minutes:")
        output.write(f"  {self._server.link()}")

    async def _end_when_idle(self) -> None:
        await self._server.wait_until_idle()
        self._end("no page was open any more")

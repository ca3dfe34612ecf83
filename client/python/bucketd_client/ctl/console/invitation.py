"""Open the page in a browser, without its ticket being seen by other users of the host."""

from __future__ import annotations

import contextlib
import getpass
import html
import os
import platform
import shutil
import sys
import tempfile
import webbrowser

FILE = "open-console.html"


def can_open_browser() -> bool:
    """Report whether a graphical browser can be opened here."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER")
    ):
        return False
    with contextlib.suppress(webbrowser.Error):
        webbrowser.get()
        return True
    return False


def ssh_command(port: int) -> str | None:
    """Return what forwards the port from the user's own machine; None unless this is over ssh."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:
        return None
    _, _, address, ssh_port = connection
    other_port = "" if ssh_port == "22" else f" -p {ssh_port}"
    host = address if address not in ("127.0.0.1", "::1") else platform.node()
    return f"ssh -N -L {port}:127.0.0.1:{port}{other_port} {getpass.getuser()}@{host}"


class RedirectFile:
    """A file that only this user may read, and that leads a browser to the link.

    Arguments of a process are seen by every user of the host, so a browser gets the name of this
    file in place of the link.
    """

    def __init__(self) -> None:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        parent = runtime if runtime and os.access(runtime, os.W_OK) else None
        self._folder = tempfile.mkdtemp(prefix="bucketctl-console-", dir=parent)
        self._path = os.path.join(self._folder, FILE)

    def open(self, link: str) -> bool:
        """Write the file and open it; report whether a browser was started."""
        self.clear()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(_redirect(link))
        try:
            return webbrowser.open(f"file://{self._path}")
        except webbrowser.Error:
            return False

    def clear(self) -> None:
        """Remove the file, once its link is used or of no use."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._path)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _redirect(link: str) -> str:
    target = html.escape(link)
    return (
        '<!doctype html><meta charset="utf-8"><title>bucketd console</title>'
        '<meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={target}">'
        f'<p>Opening <a href="{target}">the console</a> …'
    )

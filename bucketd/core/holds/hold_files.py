"""The files of holds, one each below ``<runtime>/holds/``, which outlive the daemon.

They need not be durable: no holder survives a reboot.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from typing import Any

import orjson

from ...errors import InvalidRequest
from ...fs import clock, errors, files
from ...model.bucket import BucketKey
from ...store.holds import Hold, Owner

log = logging.getLogger(__name__)
DIRECTORY = "holds"


class HoldFiles:
    """Read and write them. ``root`` is a descriptor of the runtime directory.

    ``problems`` has a sentence for each file that could not be loaded.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self.problems: list[str] = []

    def load(self) -> list[Hold]:
        """Return the holds of an earlier daemon of this boot, by their order.

        Of two that exclude each other the later one is right.
        """
        found: list[Hold] = []
        try:
            names = files.names(self._root, (DIRECTORY,))
        except OSError as error:
            self._report(f"cannot read the holds in {DIRECTORY}/: {error.strerror}")
            return []
        for name in names:
            if name.startswith("."):
                continue
            try:
                hold = _parse(files.read(self._root, (DIRECTORY,), name).text)
                if hold is not None and name == f"{hold.id}.json":
                    found.append(hold)
                else:
                    self.remove(name.removesuffix(".json"))
            except OSError as error:
                self._report(f"cannot load the hold {_shown(name)}: {error.strerror}")
            except (ValueError, TypeError, KeyError, InvalidRequest):
                self._report(
                    f"cannot load the hold {_shown(name)}: it is not the file of a hold; remove it"
                )
        kept: list[Hold] = []
        for hold in sorted(found, key=lambda one: one.order, reverse=True):
            if any(later.excludes(hold) for later in kept):
                self.remove(hold.id)
            else:
                kept.append(hold)
        return kept[::-1]

    def save(self, hold: Hold, root: int | None = None) -> None:
        """Write the file of a hold. Raises BucketdError."""
        text = orjson.dumps(
            {
                "id": hold.id,
                "fence": hold.fence,
                "device": hold.key.device,
                "job": hold.key.job,
                "name": hold.name,
                "exclusive": hold.exclusive,
                "label": hold.label,
                "order": hold.order,
                "since": hold.since,
                "began": hold.began,
                "boot": clock.boot_id(),
                "host": hold.host,
                "by": hold.owner._asdict(),
            }
        )
        try:
            root = self._root if root is None else root
            files.write(root, (DIRECTORY,), f"{hold.id}.json", lambda _birth: text, durably=False)
        except OSError as error:
            raise errors.refusal("store the hold", error) from error

    def remove(self, hold_id: str) -> None:
        """Remove the file of a hold that has ended."""
        try:
            files.remove(self._root, (DIRECTORY,), f"{hold_id}.json", durably=False)
        except OSError as error:
            log.warning("cannot remove the file of a hold that has ended: %s", error)

    def exist(self) -> bool:
        """Report whether the directory of the files exists."""
        with contextlib.suppress(OSError):
            os.stat(DIRECTORY, dir_fd=self._root)
            return True
        return False

    def move(self, root: int, holds: Iterable[Hold]) -> None:
        """Write these again below another runtime directory. Raises BucketdError."""
        for hold in holds:
            self.save(hold, root)
        self._root = root

    def _report(self, problem: str) -> None:
        log.warning("%s", problem)
        self.problems.append(problem)


def _parse(text: bytes) -> Hold | None:
    """Return the hold in a file; None if it is of another boot, which no holder has survived.

    Raises ValueError, TypeError, KeyError or InvalidRequest.
    """
    members: dict[str, Any] = orjson.loads(text)
    strings = [members["id"], members["fence"], members["host"], members["boot"], members["name"]]
    began, since, order = members["began"], members["since"], members["order"]
    if not all(isinstance(one, str) for one in strings):
        raise TypeError("it is not the file of a hold")
    if not _is_time(began) or not _is_time(since) or type(order) is not int:
        raise TypeError("it is not the file of a hold")
    if not clock.is_this_boot(members["boot"], began):
        return None
    return Hold(
        id=members["id"],
        fence=members["fence"],
        key=BucketKey.checked(members["device"], members["job"]),
        owner=Owner(**members["by"]),
        host=members["host"],
        name=members["name"],
        exclusive=bool(members["exclusive"]),
        label=members["label"],
        order=order,
        since=float(since),
        began=float(began),
        connected=False,
    )


def _shown(name: str) -> str:
    """Return the path of a file for display; bytes that are not UTF-8 become escapes."""
    return f"{DIRECTORY}/{os.fsencode(name).decode(errors='backslashreplace')}"


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

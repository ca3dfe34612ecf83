"""Keys and values of holds in etcd, and what a change of a bucket compares with them."""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from ...errors import BucketdError, Held
from ...fs import clock
from ...model.bucket import BucketKey, check_name
from ..holds import Hold, HoldQueue, Owner, held_exclusively, hold_lost
from .client import b64
from .keys import KeyValue, key_of


def encode(hold: Hold, session: str) -> bytes:
    """Return the value of a hold's key; ``session`` is that of its host."""
    return orjson.dumps(
        {
            "id": hold.id,
            "device": hold.key.device,
            "job": hold.key.job,
            "name": hold.name,
            "exclusive": hold.exclusive,
            "label": hold.label,
            "since": hold.since,
            "by": hold.owner._asdict(),
            "host": hold.host,
            "session": session,
        }
    )


def decode(kv: KeyValue) -> Hold | None:
    """Return the hold in a value; None if it is not valid."""
    try:
        value: dict[str, Any] = orjson.loads(base64.b64decode(kv["value"]))
        secret = key_of(kv).rpartition(b"/")[2].decode()
        order, since = int(kv["create_revision"]), float(value["since"])
        name = value["name"]
        if name != "":
            check_name(name, "hold's")
        return Hold(
            id=str(value["id"]),
            fence=f"{secret}.{order}",
            key=BucketKey.checked(value["device"], value["job"]),
            owner=Owner(**value["by"]),
            host=str(value["host"]),
            name=name,
            exclusive=bool(value["exclusive"]),
            label=value["label"],
            order=order,
            since=since,
            began=clock.boottime() - max(0.0, time.time() - since),
        )
    except (ValueError, KeyError, TypeError, BucketdError):
        return None


def session_of(kv: KeyValue) -> object:
    """Return the session of the host that has put a hold; None if it is not known."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return orjson.loads(base64.b64decode(kv["value"])).get("session")
    return None


@dataclass(slots=True)
class Guard:
    """Collect what a transaction on a bucket compares, so that it respects holds.

    ``fences``: the keys of holds and their create_revisions; ``exclusive``: keys that must not be.
    """

    key: BucketKey
    queue: HoldQueue
    fences: list[tuple[bytes, str]] = field(default_factory=list)
    exclusive: list[bytes] = field(default_factory=list)

    def compares(self) -> list[dict[str, Any]]:
        found = [
            {"key": b64(key), "target": "CREATE", "create_revision": revision}
            for key, revision in self.fences
        ]
        absent = [{"key": b64(key), "target": "VERSION", "version": "0"} for key in self.exclusive]
        return found + absent

    def reads(self) -> list[dict[str, Any]]:
        """Return the requests whose answers ``check`` needs."""
        keys = [*(key for key, _ in self.fences), *self.exclusive]
        return [{"request_range": {"key": b64(key)}} for key in keys]

    def check(self, responses: list[dict[str, Any]]) -> None:
        """Raise HoldLost or Held if that is why the comparison has failed."""
        found = [response["response_range"].get("kvs") for response in responses]
        for (_, revision), kvs in zip(self.fences, found, strict=False):
            if not kvs or kvs[0]["create_revision"] != revision:
                self.queue.refused += 1
                raise hold_lost(self.key)
        for kvs in found[len(self.fences) :]:
            if kvs:
                holder = decode(kvs[0])
                raise (
                    held_exclusively(self.key, holder)
                    if holder
                    else Held(
                        f"cannot change {self.key}: it is held exclusively; nothing was changed"
                    )
                )

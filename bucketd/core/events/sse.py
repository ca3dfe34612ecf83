"""Server-Sent Events as bytes.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. The ``id`` of an event is
the store's event id of the change.
"""

from __future__ import annotations

from typing import Any

import orjson

from ...model.bucket import BucketKey
from .diff import Difference

RETRY = b"retry: 1000\n"  # milliseconds after which a browser's EventSource connects again
HEARTBEAT = b": \n"


def event_id_only(event_id: str) -> bytes:
    """Return the event id to resume from, without an event."""
    return b"id: %b\n\n" % event_id.encode()


def gap(event_id: str, key: BucketKey | None) -> bytes:
    """Return the event for missed changes of one bucket or, with None, of any bucket."""
    where = {} if key is None else {"device": key.device, "job": key.job}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (event_id.encode(), orjson.dumps(where))


def bucket(event_id: str, key: BucketKey, revision: int, difference: Difference) -> bytes:
    """Return the event for a change of a bucket."""
    about = {"device": key.device, "job": key.job, "revision": revision}
    return b'event: bucket\nid: %b\ndata: %b,"set":{%b},"removed":%b}\n\n' % (
        event_id.encode(),
        orjson.dumps(about)[:-1],
        b",".join(difference.set.values()),
        orjson.dumps(difference.removed),
    )


def announcement(event: str, data: dict[str, Any]) -> bytes:
    """Return an event without an id: it is not a change, so nobody can resume from it."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))

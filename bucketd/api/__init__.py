"""The HTTP API: who may do what (access), by which route (routes), in which words (responses)."""

from .access import Peer
from .dispatch import admit, body_too_large, check_not_stopping, handle, resolve
from .request import ResolvedRequest
from .responses import Deferred, Reply, Response, Stream, http_date, refusal
from .services import Services

__all__ = [
    "Deferred",
    "Peer",
    "Reply",
    "ResolvedRequest",
    "Response",
    "Services",
    "Stream",
    "admit",
    "body_too_large",
    "check_not_stopping",
    "handle",
    "http_date",
    "refusal",
    "resolve",
]

"""The bucket of your automation: state that outlives it, kept by bucketd on this host.

    from bucketd_client import agent            results, never exceptions
    from bucketd_client.aio import agent        the same for asyncio
    from bucketd_client import Bucket           dicts, and exceptions

Each name is imported when it is first used, so that importing this package takes hardly any time.
"""

# Type checkers treat this name as True; importing typing would take longer than a call.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._agent import Agent as Agent
    from ._agent import agent as agent
    from ._async_bucket import AsyncBucket as AsyncBucket
    from ._async_held_bucket import AsyncHeldBucket as AsyncHeldBucket
    from ._bucket import Bucket as Bucket
    from ._errors import CODES as CODES
    from ._errors import BucketCorrupt as BucketCorrupt
    from ._errors import BucketError as BucketError
    from ._errors import ConnectionLost as ConnectionLost
    from ._errors import DaemonUnreachable as DaemonUnreachable
    from ._errors import Forbidden as Forbidden
    from ._errors import Held as Held
    from ._errors import HoldLost as HoldLost
    from ._errors import InternalError as InternalError
    from ._errors import InvalidJson as InvalidJson
    from ._errors import InvalidRequest as InvalidRequest
    from ._errors import NoJobContext as NoJobContext
    from ._errors import NotFound as NotFound
    from ._errors import Overloaded as Overloaded
    from ._errors import PatchFailed as PatchFailed
    from ._errors import PreconditionFailed as PreconditionFailed
    from ._errors import ReadOnly as ReadOnly
    from ._errors import RequestTimeout as RequestTimeout
    from ._errors import SchemaViolation as SchemaViolation
    from ._errors import ShuttingDown as ShuttingDown
    from ._errors import StorageFull as StorageFull
    from ._errors import Timeout as Timeout
    from ._errors import TooLarge as TooLarge
    from ._errors import Unavailable as Unavailable
    from ._events import Change as Change
    from ._held_bucket import HeldBucket as HeldBucket
    from ._history import HistoryEntry as HistoryEntry
    from ._operations import Snapshot as Snapshot
    from ._results import BucketResult as BucketResult
    from ._results import BucketSuccess as BucketSuccess
    from ._results import DeviceBucketResult as DeviceBucketResult
    from ._results import DeviceBucketSuccess as DeviceBucketSuccess
    from ._results import Failure as Failure
    from ._results import HistoryResult as HistoryResult
    from ._results import HistorySuccess as HistorySuccess
    from ._results import HoldResult as HoldResult
    from ._results import HoldSuccess as HoldSuccess
    from ._results import WriteResult as WriteResult
    from ._results import WriteSuccess as WriteSuccess
    from ._warnings import SchemaWarning as SchemaWarning

__version__ = "0.1.0"

_HOMES = {
    "_agent": ("Agent", "agent"),
    "_async_bucket": ("AsyncBucket",),
    "_async_held_bucket": ("AsyncHeldBucket",),
    "_operations": ("Snapshot",),
    "_bucket": ("Bucket",),
    "_events": ("Change",),
    "_held_bucket": ("HeldBucket",),
    "_history": ("HistoryEntry",),
    "_errors": (
        *("BucketCorrupt", "BucketError", "CODES", "ConnectionLost", "DaemonUnreachable"),
        *("Forbidden", "Held", "HoldLost", "InternalError", "InvalidJson", "InvalidRequest"),
        *("NoJobContext", "NotFound", "Overloaded", "PatchFailed", "PreconditionFailed"),
        *("ReadOnly", "RequestTimeout", "SchemaViolation", "ShuttingDown", "StorageFull"),
        *("Timeout", "TooLarge", "Unavailable"),
    ),
    "_results": (
        *("BucketResult", "BucketSuccess", "DeviceBucketResult", "DeviceBucketSuccess"),
        *("Failure", "HistoryResult", "HistorySuccess", "HoldResult", "HoldSuccess"),
        *("WriteResult", "WriteSuccess"),
    ),
    "_warnings": ("SchemaWarning",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Importing importlib would take longer.
    home = __import__(_HOME_OF[name], globals(), None, (name,), 1)
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*_HOME_OF, "__version__"]

"""The results of ``agent``, which returns errors instead of raising: objects and mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Union

from ._errors import BucketError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ._codes import Code
    from ._history import HistoryEntry

    B = TypeVar("B", bound=Mapping[str, Any], default=dict[str, Any])
    H = TypeVar("H")
else:
    from typing import TypeVar

    B, H = TypeVar("B"), TypeVar("H")


class Result(Mapping[str, Any]):
    """The members of the daemon's response, as attributes and as keys."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = dict(members)

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._members!r})"


class _Successful(Result):
    __slots__ = ()

    # Type checkers distinguish the results by an attribute, but not by a property.
    success: Literal[True] = True

    if TYPE_CHECKING:  # see Failure.bucket

        @property
        def error(self) -> NoReturn: ...
        @property
        def code(self) -> NoReturn: ...


class _Success(_Successful):
    __slots__ = ()

    @property
    def revision(self) -> int:
        """The revision; 0 if no bucket is stored."""
        return int(self._members["revision"])

    @property
    def recovered_from(self) -> dict[str, Any] | None:
        """The revision and the reason, if the last good generation replaced an unreadable file."""
        found: dict[str, Any] | None = self._members.get("recovered_from")
        return found

    @property
    def stale_seconds(self) -> float | None:
        """The maximum age of the bucket, if the daemon could not reach its cluster."""
        found: float | None = self._members.get("stale_seconds")
        return found

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What stood in the bucket before this write and violates its schema, which tolerates it.

        Each has ``path``, ``message`` and ``keyword``, as the ``details`` of a refusal.
        """
        found: list[dict[str, Any]] = self._members.get("warnings", [])
        return found


class BucketSuccess(_Success, Generic[B]):
    """``bucket`` is the whole bucket."""

    __slots__ = ()

    @property
    def bucket(self) -> B:
        found: B = self._members["bucket"]
        return found


class DeviceBucketSuccess(_Success):
    """``deviceBucket`` (or ``device_bucket``) is the whole device bucket."""

    __slots__ = ()

    @property
    def deviceBucket(self) -> dict[str, Any]:  # noqa: N802  (the same name in every language)
        found: dict[str, Any] = self._members["deviceBucket"]
        return found

    @property
    def device_bucket(self) -> dict[str, Any]:
        return self.deviceBucket


class HoldSuccess(_Successful, Generic[H]):
    """``held`` is the bucket that is held now: ``with result.held as held: held.set(…)``."""

    __slots__ = ()

    @property
    def held(self) -> H:
        found: H = self._members["held"]
        return found


class HistorySuccess(_Successful):
    """``history`` has the changes, the newest first; see ``Bucket.history``."""

    __slots__ = ()

    @property
    def history(self) -> list[HistoryEntry]:
        found: list[HistoryEntry] = self._members["history"]
        return found


class WriteSuccess(_Success):
    """The result of a write with ``returning=False``: ``revision``, and no bucket."""

    __slots__ = ()


class Failure(Result):
    """``error`` is a sentence for people, ``code`` one of the closed list, for programs."""

    __slots__ = ()

    @classmethod
    def of(cls, cause: BucketError) -> Failure:
        members: dict[str, Any] = {"success": False, "error": cause.message, "code": cause.code}
        if cause.details:
            members["details"] = cause.details
        if cause.revision is not None:
            members["revision"] = cause.revision
        return cls(members)

    success: Literal[False] = False

    @property
    def error(self) -> str:
        return str(self._members["error"])

    @property
    def code(self) -> Code:
        found: Code = self._members["code"]
        return found

    @property
    def details(self) -> list[Any]:
        found: list[Any] = self._members.get("details", [])
        return found

    @property
    def revision(self) -> int | None:
        """The bucket's current revision, if the response has it."""
        found: int | None = self._members.get("revision")
        return found

    if TYPE_CHECKING:
        # Some type checkers do not distinguish the results by ``if result.success:``. For these,
        # NoReturn in a union adds nothing to the bucket's type.
        @property
        def bucket(self) -> NoReturn: ...
        @property
        def deviceBucket(self) -> NoReturn: ...  # noqa: N802
        @property
        def device_bucket(self) -> NoReturn: ...
        @property
        def held(self) -> NoReturn: ...
        @property
        def history(self) -> NoReturn: ...

    else:

        def __getattr__(self, name: str) -> Any:
            """Raise an AttributeError that includes the failure's own error."""
            # Copying and unpickling look up names before ``_members`` exists.
            if name.startswith("_"):
                raise AttributeError(name)
            raise AttributeError(f"the result has no {name!r}: {self._members['error']}")


BucketResult = Union[BucketSuccess[B], Failure]
DeviceBucketResult = Union[DeviceBucketSuccess, Failure]
HoldResult = Union[HoldSuccess[H], Failure]
WriteResult = Union[WriteSuccess, Failure]
HistoryResult = Union[HistorySuccess, Failure]

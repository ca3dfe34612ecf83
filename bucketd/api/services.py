"""What handlers may use: the parts of the daemon, put together by ``daemon``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ..core.backup_record import BackupRecord
from ..core.buckets import Buckets
from ..core.contexts import Contexts
from ..core.events import Hub
from ..core.holds import Holds
from ..core.retention import Retention
from ..core.schemas.registry import Registry
from ..core.schemas.replication import SchemaWriter
from ..core.trash import Trash
from ..stats import RequestCounter
from .access import Operators


@dataclass(slots=True)
class Services:
    """Everything that handlers may use. A reload replaces members, never changes them."""

    buckets: Buckets
    contexts: Contexts
    events: Hub
    holds: Holds
    schemas: Registry
    schema_writer: SchemaWriter
    retention: Retention
    backups: BackupRecord
    trash: Trash
    operators: Operators
    body_timeout: float
    status: Callable[[], Awaitable[dict[str, Any]]]
    metrics: Callable[[], Awaitable[bytes]]
    slow_seconds: float
    tally: RequestCounter = field(default_factory=RequestCounter)
    draining: bool = False

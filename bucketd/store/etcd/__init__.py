"""The etcd engine: buckets of a fleet in one etcd cluster, or spread over several.

Import it only to open it: a daemon on files does not need it.
"""

from .client import EtcdOptions
from .schemas import EtcdSchemas
from .sharded_store import ShardedStore
from .store import EtcdStore

__all__ = ["EtcdOptions", "EtcdSchemas", "EtcdStore", "ShardedStore"]

"""The embedded engine: a commit journal, and one JSON file for each bucket."""

from .records import JournalError
from .store import FileStore, FileStoreOptions

__all__ = ["FileStore", "FileStoreOptions", "JournalError"]

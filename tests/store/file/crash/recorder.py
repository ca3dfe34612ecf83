"""Records what the store asks of the file system, and rebuilds what a crash may leave of it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Op:
    """One effect. ``kind``: create mkdir data rename link unlink | sync syncdir syncall ack."""

    kind: str
    inode: int = 0
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""
    note: Any = None


class Recorder:
    """Stands in for the store's ``os`` module: does the real thing and writes it down."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.ops: list[Op] = []
        self._paths: dict[int, str] = {}
        self._offsets: dict[int, int] = {}
        # Inode numbers come again after a file is gone; these do not.
        self._files: dict[int, int] = {}
        self._guard = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def note(self, op: Op) -> None:
        with self._guard:
            self.ops.append(op)

    def _full(self, path: str, dir_fd: int | None) -> str:
        if dir_fd is None:
            return os.path.relpath(path, self.root)
        return os.path.normpath(os.path.join(self._paths.get(dir_fd, "."), path))

    def _do(self, act: Callable[[], Any], op: Callable[[Any], Op | None]) -> Any:
        with self._guard:
            result = act()
            noted = op(result)
            if noted is not None:
                self.ops.append(noted)
            return result

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._guard:
            where = self._full(path, dir_fd)
            new = bool(flags & os.O_CREAT) and not os.path.lexists(os.path.join(self.root, where))
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            self._paths[fd] = where
            self._offsets[fd] = 0
            if new:
                self.ops.append(self.created(os.fstat(fd).st_ino, where))
            return fd

    def created(self, inode: int, path: str) -> Op:
        """Note that from here on the inode is another file than before."""
        self._files[inode] = len(self.ops) + 1_000_000
        return Op("create", self._files[inode], path)

    def file(self, fd: int) -> int:
        inode = os.fstat(fd).st_ino
        return self._files.get(inode, inode)

    def dup(self, fd: int) -> int:
        with self._guard:
            copy = os.dup(fd)
            self._paths[copy] = self._paths.get(fd, ".")
            return copy

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = self._full(path, dir_fd)
        self._do(lambda: os.mkdir(path, mode, dir_fd=dir_fd), lambda _: Op("mkdir", path=where))

    def write(self, fd: int, data: Any) -> int:
        def op(done: int) -> Op:
            offset = self._offsets[fd]
            self._offsets[fd] += done
            return Op("data", self.file(fd), offset=offset, data=bytes(data[:done]))

        return int(self._do(lambda: os.write(fd, data), op))

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return int(
            self._do(
                lambda: os.pwrite(fd, data, offset),
                lambda done: Op("data", self.file(fd), offset=offset, data=bytes(data[:done])),
            )
        )

    def fsync(self, fd: int) -> None:
        where = self._paths.get(fd, ".")
        kind = "syncdir" if os.path.isdir(os.path.join(self.root, where)) else "sync"
        self._do(lambda: os.fsync(fd), lambda _: Op(kind, self.file(fd), where))

    def fdatasync(self, fd: int) -> None:
        self._do(lambda: os.fdatasync(fd), lambda _: Op("sync", self.file(fd)))

    def rename(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        a, b = self._full(src, src_dir_fd), self._full(dst, dst_dir_fd)
        self._do(
            lambda: os.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd),
            lambda _: Op("rename", path=a, target=b),
        )

    def link(
        self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool
    ) -> None:
        a, b = self._full(src, src_dir_fd), self._full(dst, dst_dir_fd)
        self._do(
            lambda: os.link(
                src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False
            ),
            lambda _: Op("link", path=a, target=b),
        )

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        where = self._full(path, dir_fd)
        self._do(lambda: os.unlink(path, dir_fd=dir_fd), lambda _: Op("unlink", path=where))

    def syncfs(self, _root: int) -> int:
        # Recorded at its end only: what was written while it ran may not be in it,
        # so what counts as synced is what had been recorded when it began.
        with self._guard:
            began = len(self.ops)
        self.note(Op("syncall", note=began))
        return 0


@dataclass
class Disk:
    """A file system in memory: directory entries, and the bytes behind them."""

    entries: dict[str, int] = field(default_factory=dict)
    directories: set[str] = field(default_factory=lambda: {"."})
    data: dict[int, bytes] = field(default_factory=dict)

    def apply(self, op: Op) -> None:
        """Do it where it can be done; what depends on something lost is lost as well."""
        getattr(self, f"_{op.kind}", lambda _op: None)(op)

    def _parent(self, path: str) -> bool:
        return (os.path.dirname(path) or ".") in self.directories

    def _mkdir(self, op: Op) -> None:
        if self._parent(op.path):
            self.directories.add(op.path)

    def _create(self, op: Op) -> None:
        if self._parent(op.path):
            self.entries[op.path] = op.inode
            self.data.setdefault(op.inode, b"")

    def _data(self, op: Op) -> None:
        old = self.data.get(op.inode, b"").ljust(op.offset, b"\0")
        self.data[op.inode] = old[: op.offset] + op.data + old[op.offset + len(op.data) :]

    def _rename(self, op: Op) -> None:
        if op.path in self.entries and self._parent(op.target):
            self.entries[op.target] = self.entries.pop(op.path)

    def _link(self, op: Op) -> None:
        if op.path in self.entries and self._parent(op.target):
            self.entries[op.target] = self.entries[op.path]

    def _unlink(self, op: Op) -> None:
        self.entries.pop(op.path, None)

    def key(self) -> int:
        files = tuple(sorted((p, self.data.get(i, b"")) for p, i in self.entries.items()))
        return hash((files, frozenset(self.directories)))

    def write_out(self, root: str) -> None:
        for directory in sorted(self.directories - {"."}):
            os.makedirs(os.path.join(root, directory), mode=0o700, exist_ok=True)
        for path, inode in self.entries.items():
            with open(os.path.join(root, path), "wb") as file:
                file.write(self.data.get(inode, b""))


SYNCS = ("sync", "syncdir", "syncall", "ack", "damage", "nothing")


def durable_from(ops: list[Op]) -> list[float]:
    """For each op the number of ops after which a crash must show its effect (inf: none)."""
    return [next(_syncs_of(ops, index), float("inf")) for index in range(len(ops))]


def _syncs_of(ops: list[Op], index: int) -> Iterator[float]:
    op = ops[index]
    for end, later in enumerate(ops[index + 1 :], index + 2):
        everything = later.kind == "syncall" and index < later.note
        content = op.kind == "data" and later.kind == "sync" and later.inode == op.inode
        name = op.kind != "data" and later.kind == "syncdir" and later.path in _parents(op)
        if everything or content or name:
            yield end


def _parents(op: Op) -> set[str]:
    return {os.path.dirname(p) or "." for p in (op.path, op.target) if p}


def crash_states(ops: list[Op], end: int, durable: list[float]) -> list[Disk]:
    """File systems that a crash just after ops[:end] may leave.

    What was synced is there. Of the rest: nothing, all, each prefix, each one
    missing, each one alone, some at random; the newest writes cut short, or only their
    later part there; and all names without the bytes behind them.
    """
    effects = [i for i in range(end) if ops[i].kind not in SYNCS]
    firm = {i for i in effects if durable[i] <= end}
    loose = [i for i in effects if i not in firm]
    choices: list[set[int]] = [set(), set(loose)]
    choices += [set(loose[:n]) for n in range(1, len(loose))]
    choices += [set(loose) - {i} for i in loose[-12:]]
    choices += [{i} for i in loose[-12:]]
    choices.append({i for i in loose if ops[i].kind != "data"})
    dice = random.Random(end)
    choices += [{i for i in loose if dice.random() < p} for p in (0.2, 0.5, 0.8) for _ in range(6)]
    states = [_build(ops, firm | chosen, effects, {}) for chosen in choices]
    for index in [i for i in loose if ops[i].kind == "data"][-3:]:
        for torn in _torn(ops[index]):
            states.append(_build(ops, firm | set(loose), effects, {index: torn}))
    return states


def _torn(op: Op) -> list[Op]:
    size = len(op.data)
    cuts = sorted({1, 8, size // 3, size // 2, size - 5, size - 1} & set(range(1, size)))
    early = [Op("data", op.inode, offset=op.offset, data=op.data[:cut]) for cut in cuts]
    late = [
        Op("data", op.inode, offset=op.offset + cut, data=op.data[cut:])
        for cut in (size // 3, size // 2)
        if 0 < cut < size
    ]
    # A block that the file system has given to the file, and not yet written: it reads as zeros.
    return [*early, *late, Op("data", op.inode, offset=op.offset, data=bytes(size))]


def _build(ops: list[Op], present: set[int], effects: list[int], torn: dict[int, Op]) -> Disk:
    disk = Disk()
    for index in effects:
        if index in present:
            disk.apply(torn.get(index, ops[index]))
    return disk

"""The tables of results: one for each topic, and one that compares the ratios with their goals."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .timing import Samples

# The parts of a page that ``--write`` replaces.
TABLES = ("<!-- written by make bench -->", "<!-- to here -->")
GOALS = ("<!-- goals, written by make bench -->", "<!-- to here, goals -->")


@dataclass
class Row:
    """A comparison. ``goal`` is a bound, ("<=", 0.7) or (">=", 3.0), or None."""

    topic: str
    work: str
    ours: str
    peer: str
    theirs: str
    ratio: float
    sense: str
    goal: float | None

    @property
    def met(self) -> bool:
        if self.goal is None:
            return True
        return self.ratio <= self.goal if self.sense == "<=" else self.ratio >= self.goal


@dataclass
class Report:
    """The rows of a run; ``topic`` is the one to which rows are added."""

    rows: list[Row] = field(default_factory=list)
    topic: str = ""
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        work: str,
        ours: str,
        peer: str,
        theirs: str,
        ratio: float,
        sense: str,
        goal: float | None,
    ) -> None:
        ratio = round(ratio, 3)
        self.rows.append(Row(self.topic, work, ours, peer, theirs, ratio, sense, goal))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def as_json(self) -> str:
        rows = [{**asdict(row), "met": row.met} for row in self.rows]
        return json.dumps({"machine": machine(), "rows": rows, "notes": self.notes}, indent=2)

    def as_text(self) -> str:
        return f"{self.as_tables()}\n\n### Goals\n\n{self.as_goals()}"

    def as_tables(self) -> str:
        """Return the machine and one table for each topic."""
        parts = [machine()]
        for topic in dict.fromkeys(row.topic for row in self.rows):
            of_topic = [row for row in self.rows if row.topic == topic]
            lines = [[r.work, r.ours, r.peer, r.theirs, f"{r.ratio:.2f}"] for r in of_topic]
            table = _table(["work", "bucketd", "peer", "its figure", "ratio"], lines)
            parts.append(f"### {topic}\n\n{table}")
        return "\n\n".join([*parts, *self.notes])

    def as_goals(self) -> str:
        """Return the table of the ratios that have a goal."""
        lines = [
            [row.work, row.peer, f"{row.ratio:.2f}", _goal(row), "yes" if row.met else "NO"]
            for row in self.rows
            if row.goal is not None
        ]
        return _table(["work", "peer", "ratio", "goal", "met"], lines)

    def write_into(self, path: Path) -> None:
        """Replace the texts between the markers of a page by the tables."""
        page = path.read_text(encoding="utf-8")
        for (begin, end), text in ((TABLES, self.as_tables()), (GOALS, self.as_goals())):
            before, _, rest = page.partition(begin)
            page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
        path.write_text(page, encoding="utf-8")


def _goal(row: Row) -> str:
    return "" if row.goal is None else f"{'≤' if row.sense == '<=' else '≥'} {row.goal:g}"


def _table(head: list[str], lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(line, widths) for line in [head, rule, *lines])


def _line(cells: list[str], widths: list[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def machine() -> str:
    """Describe the machine and its load; the ratios hold on a quiet machine."""
    processor = _value("/proc/cpuinfo", "model name") or platform.machine()
    memory = int(_value("/proc/meminfo", "MemTotal").split()[0]) / 1024 / 1024
    return (
        f"{os.cpu_count()} x {processor}, {memory:.0f} GiB, {_file_system()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[2]:.1f} over 15 minutes"
    )


def _value(path: str, name: str) -> str:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _file_system() -> str:
    """Return the file system of the directory of the run."""
    at = os.path.realpath(os.environ.get("BENCH_DIR", "."))
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [m for m in mounts if os.path.commonpath((at, m[1])) == m[1]]
    return max(above, key=lambda m: len(m[1]))[2]


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds * 1e3:.1f} ms"


def latency(samples: Samples) -> str:
    return f"{micro(samples.p50)} (p99 {micro(samples.p99)}, {per_second(samples.rate)})"


def per_second(rate: float) -> str:
    return f"{rate:.0f}/s"

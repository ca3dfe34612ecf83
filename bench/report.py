"""The table of results: work, contestants, times, and the ratio with its goal."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .timing import Samples

BEGIN, END = "<!-- written by make bench -->", "<!-- to here -->"


@dataclass
class Row:
    """A row of the table. ``goal`` is a bound, ("<=", 0.7) or (">=", 3.0), or None."""

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
    rows: list[Row] = field(default_factory=list)
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
        self.rows.append(Row(work, ours, peer, theirs, round(ratio, 3), sense, goal))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def as_json(self) -> str:
        rows = [{**asdict(row), "met": row.met} for row in self.rows]
        return json.dumps({"machine": machine(), "rows": rows, "notes": self.notes}, indent=2)

    def as_table(self) -> str:
        head = ["work", "bucketd", "peer", "its figure", "ratio", "goal", ""]
        lines = [
            [
                row.work,
                row.ours,
                row.peer,
                row.theirs,
                f"{row.ratio:.2f}",
                _goal(row),
                "" if row.goal is None else "yes" if row.met else "NO",
            ]
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        text = [_line(head, widths), _line(["-" * width for width in widths], widths)]
        text += [_line(line, widths) for line in lines]
        return "\n".join([machine(), "", *text, "", *self.notes]).rstrip()

    def write_into(self, path: Path) -> None:
        """Replace the text between the two markers of a page by the table."""
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{BEGIN}\n{self.as_table()}\n{END}{after}", encoding="utf-8")


def _goal(row: Row) -> str:
    return "" if row.goal is None else f"{'≤' if row.sense == '<=' else '≥'} {row.goal:g}"


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

"""The table: what was done, by whom, how fast, and the ratio to the goal."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    """One ratio. ``goal`` is a bound: ("<=", 0.7) or (">=", 3.0)."""

    work: str
    ours: str
    peer: str
    theirs: str
    ratio: float
    sense: str
    goal: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal if self.sense == "<=" else self.ratio >= self.goal


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, work: str, ours: str, peer: str, theirs: str, ratio: float, sense: str, goal: float
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
                f"{'≤' if row.sense == '<=' else '≥'} {row.goal:g}",
                "yes" if row.met else "NO",
            ]
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        text = [_line(head, widths), _line(["-" * width for width in widths], widths)]
        text += [_line(line, widths) for line in lines]
        return "\n".join([machine(), "", *text, "", *self.notes])


def _line(cells: list[str], widths: list[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return (
        f"{os.cpu_count()} x {processor}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds * 1e3:.1f} ms"


def per_second(rate: float) -> str:
    return f"{rate:.0f}/s"

"""``python -m bench``: run all comparisons and print tables of ratios."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from . import clients, fleets, histories, large, probes, revisions, works
from .peers import Bucketd
from .report import Report

# The topics of the page: works run on one daemon, probes start their own.
ONE, MANY, LARGE = "One client", "Many clients", "Large buckets"
CLIENTS, PROCESS, FLEET = "TypeScript and asyncio", "Starts, memory, watchers, holds", "On etcd"
HISTORY = "With and without a history"
WORKS = (
    *((ONE, work) for work in (works.single_gets, works.single_sets, works.with_schema)),
    *((MANY, work) for work in (works.many_gets, works.many_sets)),
    *((CLIENTS, work) for work in (clients.typescript, clients.asyncio)),
    (LARGE, large.large_buckets),
)
PROBES = (
    *((PROCESS, probe) for probe in probes.PROBES),
    (HISTORY, histories.history),
    (FLEET, fleets.fleet),
)
MILLION = "A million buckets"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to try it out")
    parser.add_argument("--write", metavar="FILE", type=Path, help="put the tables into a page")
    parser.add_argument("--only", metavar="WORD", default="", help="works whose name has this word")
    parser.add_argument(
        "--before", metavar="DIR", type=Path, help="only this daemon beside that of a checkout"
    )
    options = parser.parse_args()
    report = Report()
    # An installed program has bytecode; without it each start would compile the sources again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

    def scale(times: int) -> int:
        return max(20, times // 10) if options.quick else times

    # The directory is beside the checkout, since /tmp may be in memory.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=os.environ.get("BENCH_DIR", ".")) as at:
        home = Path(at).resolve()
        if options.before is not None:
            report.topic = "Before and after"
            revisions.compare(options.before.resolve(), home, report, scale)
            print(report.as_json() if options.json else report.as_text())
            return 0
        for report.topic, work in WORKS:
            if options.only in work.__name__:
                with Bucketd(home).running():
                    work(Bucketd(home), home, report, scale)
        for report.topic, probe in PROBES:
            if options.only in probe.__name__:
                probe(home, report, scale)
        if options.quick:
            report.note("without 1,000,000 buckets on disk (--quick)")
        elif options.only in probes.million.__name__:
            report.topic = MILLION
            probes.million(home, report, scale)
    if options.write is not None:
        report.write_into(options.write)
    print(report.as_json() if options.json else report.as_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

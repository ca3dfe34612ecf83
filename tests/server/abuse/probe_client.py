"""A client that behaves, in a process of its own: get, set, a short pause, again.

Prints, in seconds, each call's time, as a JSON array. Arguments: socket, seconds. It goes on behind
those until it has made some calls, for on a busy machine a short while may be one call long.
"""

from __future__ import annotations

import json
import sys
import time

from bucketd_client import Bucket

PAUSE = 0.002
FEWEST = 10  # times that it gets and sets


def main(path: str, seconds: float) -> None:
    bucket = Bucket(device="well", job="behaved", socket=path, timeout=30)
    times, number, until = [], 0, time.monotonic() + seconds
    while number < FEWEST or time.monotonic() < until:
        number += 1
        for data in ({"n": number}, None):
            began = time.perf_counter()
            found = bucket.get() if data is None else bucket.set(data)
            times.append(time.perf_counter() - began)
            if found != {"n": number}:
                raise SystemExit(f"stored {number}, found {found}")
        time.sleep(PAUSE)
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

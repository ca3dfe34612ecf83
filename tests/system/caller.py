"""Runs in the machine: writes as fast as it can through the client, until it is told to end.

``caller.py JOB STOP SECONDS``: prints the number of acknowledged writes, and each
call that failed. It ends when the file STOP exists; a call may take SECONDS.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bucketd_client import Bucket, BucketError

job, stop = sys.argv[1], Path(sys.argv[2])
bucket = Bucket(device="load", job=job, timeout=float(sys.argv[3]))
count, failures = 0, []
while not stop.exists() and len(failures) < 5:
    try:
        bucket.set({"n": count + 1})
        count += 1
    except BucketError as error:
        failures.append(repr(error))
print(count, *failures, sep="\n")

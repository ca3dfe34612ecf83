"""A server for tests: bucketd itself where it is installed, else a small one in memory.

With pytest nothing needs to be imported; the fixtures are there:

    def test_logs_in_once(bucket):          # or device_bucket, bucketd_server
        bucket.seed({"user": "ada"})
        my_automation.main()                # uses agent.utils.bucket as always
        bucket.assert_set(loggedIn=True)

Elsewhere: ``with Server() as server: server.bucket("phone-1", "login")``.
"""

from __future__ import annotations

from ._server import Server
from ._stored_bucket import StoredBucket, Write

__all__ = ["Server", "StoredBucket", "Write"]

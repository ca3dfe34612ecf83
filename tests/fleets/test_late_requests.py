"""A node that hung comes back, and does what it was asked then: that must not count any more."""

from __future__ import annotations

import os
import signal
import time

import pytest
from fleet import cluster
from harness import pair


@pytest.mark.parametrize("number", range(2))
def test_a_bucket_that_was_removed_meanwhile_is_not_made_again(number: int) -> None:
    with cluster(3) as three:
        asked = next(node for node in three.nodes if node is not three.leader())
        others = [node for node in three.nodes if node is not asked]
        host = three.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="2")
        urls = [node.url for node in (asked, *others)]
        host.env["BUCKETD_STORE_ETCD_ENDPOINTS"] = ",".join(urls)
        try:
            host.start()
            path = pair("late", f"{number}")
            host.request("PUT", path, {"n": 0})
            host.request("DELETE", path)  # so what it knows is that there is none
            asked.signal(signal.SIGSTOP)
            os.waitid(os.P_PID, asked.process.pid, os.WSTOPPED)
            assert host.request("PUT", path, {"n": 1}).status == 200
            assert host.request("DELETE", path).status == 200
            asked.signal(signal.SIGCONT)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert host.request("GET", path).bucket == {}
                time.sleep(0.02)
        finally:
            host.remove()

"""The demo of ``make demo-fleet``: a device moves from host A to host B, and its session resumes.

Three nodes of etcd and two daemons run on this machine, in a scratch directory. Between the two
task iterations the leader of etcd is killed, and then host A. The demo checks each step, and exits
with status 0 only if all steps succeeded.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo_stage import (
    Failed,
    check,
    command,
    exit_on_signals,
    output,
    report_failures,
    run_steps,
    scratch_directory,
)
from demo_tools import LOGGED_IN, RESUMED, Daemon, choose_automation, run
from etcd import Cluster

DEVICE, JOB = "phone-1", "login"
NEXT = """
Where to go next:
  docs/fleet.md        a farm that works, changed from files to etcd and back
  docs/SCALING.md      how large it may get, and what it costs
  docs/tutorial.md     a login that survives, by your own hand
  docs/how-to.md       back up, share, wait for a change, schemas, Appium, Playwright, cron
"""


class Demo:
    """The steps of the demo; a step raises Failed unless its result is as expected."""

    def __init__(self, cluster: Cluster, hosts: dict[str, Daemon], automation: list[str]) -> None:
        self._cluster, self._hosts, self._automation = cluster, hosts, automation

    def run(self) -> None:
        steps = (
            ("Start three nodes of etcd", self.start_cluster),
            ("Start a daemon on host A and one on host B", self.start_hosts),
            ("Host A: there is no session yet", self.log_in),
            ("Kill the node of etcd that leads the others", self.kill_leader),
            ("Host B has the device now: the session is there", self.resume_on_b),
            ("Host A sees what host B stores", self.see_on_a),
            ("Host A dies, too; host B goes on", self.kill_a),
            ("The node of etcd comes back, and has all that it missed", self.bring_back),
        )
        run_steps(steps)

    def start_cluster(self) -> None:
        self._cluster.start()
        check(True, f"{self._cluster.leader().name} leads them", "")

    def start_hosts(self) -> None:
        for name, daemon in self._hosts.items():
            daemon.start()
            check(True, f"host {name} answers on its socket", "")

    def log_in(self) -> None:
        check(self._iterate("A") == LOGGED_IN, "it logged in and stored its session",
              "it should log in")  # fmt: skip

    def kill_leader(self) -> None:
        self._dead = self._cluster.leader()
        self._dead.kill()
        check(True, f"{self._dead.name} is gone; two of three are a majority", "")

    def resume_on_b(self) -> None:
        check(self._iterate("B") == RESUMED, "it resumed on another host, without a login",
              "it should resume")  # fmt: skip

    def see_on_a(self) -> None:
        self._ctl("B", "set", "--device", DEVICE, "--job", JOB, "seenOn=B")
        said = self._ctl("A", "get", "--device", DEVICE, "--job", JOB, "seenOn")
        check(said == '"B"\n', "both hosts have one truth", "host A has another value")

    def kill_a(self) -> None:
        self._hosts["A"].kill()
        check(not self._hosts["A"].answers(), "nobody answers on host A", "something answers")
        check(self._iterate("B") == RESUMED, "host B does not mind", "it should resume")

    def bring_back(self) -> None:
        self._dead.start()
        self._cluster.wait(self._dead)
        name = f"/bucketd/job/{DEVICE}/{JOB}"
        # The request goes over HTTP, so that the demo does not need etcdctl.
        command(f"etcdctl get {name} --print-value-only \\\n       --endpoints {self._dead.url}")
        found = self._dead.value(name)
        output(found)
        print("   (what the demo asks over HTTP; etcdctl is in the package etcd-client)")
        same = json.loads(found)["bucket"].get("seenOn") == "B"
        check(same, f"{self._dead.name} has the bucket as host B left it", "it has another one")

    def _iterate(self, host: str) -> list[str]:
        """Run one task iteration on a host, and return the lines that the automation printed."""
        said = self._ctl(host, "run", "--device", DEVICE, "--job", JOB, "--", *self._automation)
        return said.splitlines()

    def _ctl(self, host: str, *words: str) -> str:
        socket = self._hosts[host].socket
        command(f"BUCKETD_SOCKET={socket} \\\n       bucketctl {shlex.join(words)}")
        status, said, error = run(["bucketctl", *words], {"BUCKETD_SOCKET": socket})
        output(said + error)
        if status:
            raise Failed(f"bucketctl ended with status {status}")
        return said


def main() -> None:
    """Run the demo. Raises SystemExit if a step failed."""
    exit_on_signals()
    if shutil.which("etcd") is None:
        sys.exit("etcd is not installed: apt install etcd-server")
    with scratch_directory("bucketd-fleet-") as scratch:
        _play(Path(scratch))
    print(NEXT, end="")


def _play(scratch: Path) -> None:
    cluster = Cluster(scratch)
    settings = f'[store]\nengine = "etcd"\n[store.etcd]\nendpoints = {cluster.endpoints}\n'
    hosts = {}
    for name in ("A", "B"):
        (scratch / name).mkdir()
        hosts[name] = Daemon(scratch / name, settings)
    try:
        with report_failures(lambda: "\n".join(daemon.log() for daemon in hosts.values())):
            Demo(cluster, hosts, choose_automation()).run()
    finally:
        for daemon in hosts.values():
            daemon.stop()
        cluster.stop()


if __name__ == "__main__":
    main()

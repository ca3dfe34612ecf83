"""The demo of ``make demo``: log in, kill the daemon, resume; two at once, and one login.

The demo runs a daemon and the login automation in a scratch directory, checks the result of each
step, and exits with status 0 only if all steps succeeded. It needs only the standard library;
``bucketd`` and ``bucketctl`` are those beside the Python interpreter that runs it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import stat
from pathlib import Path
from typing import Any

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
from demo_tools import LOGGED_IN, RESUMED, Daemon, choose_automation, run, run_at_once

DEVICE, JOB = "phone-1", "login"
BUCKET = f"/v1/devices/{DEVICE}/jobs/{JOB}/bucket"
NEXT = """
Where to go next:
  README.md            five minutes of use: a daemon of your own, bucketctl, curl
  docs/tutorial.md     the same in ten minutes, by your own hand
  docs/how-to.md       back up, share, wait for a change, schemas, Appium, Playwright, cron
  examples/            this automation in TypeScript, Python and sh, to copy from
  client/node          the TypeScript client
  client/python        the Python client and bucketctl
  config/schemas       what a schema looks like, in both forms
  ARCHITECTURE.md      how the daemon keeps its promises
"""


class Demo:
    """The steps of the demo; a step raises Failed unless its result is as expected."""

    def __init__(self, daemon: Daemon, automation: list[str]) -> None:
        self._daemon, self._automation = daemon, automation
        self._environ = {"BUCKETD_SOCKET": daemon.socket}
        self._token = ""
        self._bucket: Any = None

    def run(self) -> None:
        steps = (
            ("Start a daemon", self.start),
            ("Task iteration 1: there is no session yet", self.log_in),
            ("Kill the daemon, so that it has no time to save anything", self.kill),
            ("Start it again", self.start_again),
            ("Task iteration 2: the session is still there", self.resume),
            ("Two iterations at once on another phone: one logs in, the other waits", self.hold),
            ("The bucket is a JSON file on disk", self.show_file),
            ("The same over the socket, with nothing but curl", self.show_over_socket),
            ("A wrong value: the schema refuses it, and nothing changes", self.refuse),
            ("What a script gets outside a job context", self.outside),
        )
        run_steps(steps)

    def start(self) -> None:
        self._daemon.start()
        check(True, "it answers on its socket", "")
        command(f"export BUCKETD_SOCKET={self._daemon.socket}")

    def log_in(self) -> None:
        said = self._iterate()
        check(said == LOGGED_IN, "it logged in", _expected(LOGGED_IN))
        _, minted = self._daemon.ask("POST", "/v1/contexts", {"device": DEVICE, "job": JOB})
        self._token = minted["token"]
        self._bucket = self._ask_with_token()
        stored = bool(self._bucket.get("sessionToken")) and self._bucket.get("loggedIn") is True
        check(stored, "it stored its session", "there is no session in the bucket")

    def kill(self) -> None:
        self._daemon.kill()
        check(not self._daemon.answers(), "nobody answers on its socket", "something answers")

    def start_again(self) -> None:
        self._daemon.start()
        same = self._ask_with_token() == self._bucket
        check(same, "a token from before the kill still opens the same bucket", "it has changed")

    def resume(self) -> None:
        check(self._iterate() == RESUMED, "it resumed, without a login", _expected(RESUMED))

    def hold(self) -> None:
        argv = self._iteration("phone-2", "--hold", "job")
        command(f"{_shown(argv)} & \\\n     {_shown(argv)} & wait")
        runs = run_at_once([argv, argv], self._environ)
        for status, said, error in sorted(runs, key=lambda done: done[1].splitlines() == RESUMED):
            output(said + error)
            if status:
                raise Failed(f"the automation ended with status {status}")
        printed = sorted(said.splitlines() for _, said, _ in runs)
        check(printed == sorted([LOGGED_IN, RESUMED]), "one login for both",
              "one should log in, and the other resume")  # fmt: skip

    def show_file(self) -> None:
        path = self._daemon.state / "devices" / DEVICE / "jobs" / f"{JOB}.json"
        command(f"cat {path}")
        if not path.is_file():
            raise Failed("there is no such file")
        output(path.read_text())
        same = json.loads(path.read_text())["bucket"] == self._bucket
        private = stat.S_IMODE(path.stat().st_mode) == 0o600
        check(same, "it holds the session of iteration 1", "it holds something else")
        check(private, "nobody but its owner can read it (mode 0600)", "others can read it")

    def show_over_socket(self) -> None:
        url = f"http://localhost{BUCKET}"
        argv = ["curl", "--silent", "--unix-socket", self._daemon.socket, url]
        if shutil.which("curl") is None:
            print("   curl is not installed (apt install curl); bucketctl sends the same request:")
            argv = ["bucketctl", "get", "--device", DEVICE, "--job", JOB, "--json"]
        command(shlex.join(argv).replace(" http", " \\\n       http"))
        status, said, error = run(argv, self._environ)
        output(said + error)
        same = status == 0 and json.loads(said).get("bucket") == self._bucket
        check(same, "the same bucket", "this is not the bucket")

    def refuse(self) -> None:
        self._is_refused(JOB, "login-session", "loginTimestamp=yesterday", "/loginTimestamp")
        same = self._ask_with_token() == self._bucket
        check(same, "the bucket is as it was", "the bucket has changed")
        self._is_refused("daily", "daily-work", "opened:=-1", "/opened")

    def _is_refused(self, job: str, automation: str, assignment: str, place: str) -> None:
        argv = ["bucketctl", "set", "--device", DEVICE, "--job", job, "--automation", automation]
        command(shlex.join([*argv, assignment]))
        status, said, error = run([*argv, assignment], self._environ)
        output(said + error)
        reported = status == 5 and f"{place} must be" in error
        check(reported, f"refused by config/schemas/{automation}.json (exit status 5)",
              f"the schema should refuse it; the exit status is {status}")  # fmt: skip

    def outside(self) -> None:
        command(shlex.join(self._automation))
        status, said, error = run(self._automation, self._environ)
        output(said + error)
        reported = error.startswith("login: cannot use the bucket:") and "bucketctl run" in error
        check(status == 1 and reported, "no bucket, and how to get one (exit status 1)",
              f"it should say so and exit with 1; its exit status is {status}")  # fmt: skip

    def _iterate(self) -> list[str]:
        """Run one task iteration, and return the lines that the automation printed."""
        argv = self._iteration(DEVICE)
        command(_shown(argv))
        status, said, error = run(argv, self._environ)
        output(said + error)
        if status:
            raise Failed(f"the automation ended with status {status}")
        return said.splitlines()

    def _iteration(self, device: str, *options: str) -> list[str]:
        names = ["--device", device, "--job", JOB]
        return ["bucketctl", "run", *names, *options, "--", *self._automation]

    def _ask_with_token(self) -> Any:
        return self._daemon.ask("GET", "/v1/bucket", token=self._token)[1].get("bucket", {})


def _shown(argv: list[str]) -> str:
    return shlex.join(argv).replace(" -- ", " -- \\\n       ")


def _expected(lines: list[str]) -> str:
    return "expected was\n     " + "\n     ".join(lines)


def main() -> None:
    """Run the demo. Raises SystemExit if a step failed."""
    options = _parser().parse_args()
    exit_on_signals()
    with scratch_directory("bucketd-demo-") as scratch:
        daemon = Daemon(Path(scratch))
        try:
            with report_failures(daemon.log):
                automation = shlex.split(options.automation) or choose_automation()
                Demo(daemon, automation).run()
        finally:
            daemon.stop()
    print(NEXT, end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Log in, lose the daemon to SIGKILL, resume.")
    parser.add_argument(
        "--automation",
        metavar="COMMAND",
        default="",
        help="run this in place of the login automation, to try one of your own: the demo "
        "fails unless it prints what examples/login_session.py prints",
    )
    return parser


if __name__ == "__main__":
    main()

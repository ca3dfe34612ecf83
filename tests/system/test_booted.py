"""bucketd as a service of a booted Debian: ``make test-systemd``.

The tests share one machine and run in order; each leaves the service running.
All of them add to its journal, which the last but one searches for secrets.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from callers import assert_all_there, caller, calls
from machine import Machine, missing, new_machine

pytestmark = [pytest.mark.booted, pytest.mark.timeout(600)]
PYTHON = "/usr/local/lib/bucketd/bin/python"
INSTALL = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels make -s -C /src install"
SOCKET = "/run/bucketd/bucketd.sock"
# Short, so that the watchdog need not be waited for; and every line that the log can have.
DROP_IN = "[Service]\nWatchdogSec=4s\nEnvironment=BUCKETD_LOG_LEVEL=debug\n"
SECRET = "kept-in-a-bucket-and-nowhere-else"
GOING_ON = f"""
touch /tmp/going-on
while [ -e /tmp/going-on ]; do sleep 0.1; done
exec bucketctl set text={SECRET}
"""
# The daemon, of which one background task ends by itself after a second.
DEFECTIVE = """
import asyncio, sys
from bucketd.__main__ import main
from bucketd.core.clock_record import ClockRecord

async def keep(self, stop):
    await asyncio.sleep(1)
    raise asyncio.CancelledError

ClockRecord.keep = keep
sys.argv = ["bucketd", "serve"]
sys.exit(main())
"""
tokens: list[str] = []


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Installed with ``make install``, enabled, and booted again after that."""
    reason = missing()
    if reason is not None:
        pytest.skip(f"a booted systemd {reason}")
    with new_machine() as machine:
        machine.run("useradd --create-home alice && useradd --create-home bob")
        machine.run(INSTALL, timeout=300)
        machine.put("/etc/systemd/system/bucketd.service.d/test.conf", DROP_IN)
        machine.run("systemctl daemon-reload && systemctl enable bucketd.service")
        machine.power_off()
        machine.boot()
        yield machine


@pytest.fixture(autouse=True)
def _still_there(machine: Machine) -> Iterator[None]:
    yield
    machine.wait_for("systemctl is-active bucketd.service")


def set_one(machine: Machine, job: str, value: str) -> None:
    machine.run(f"bucketctl set --device phone --job {job} text={value}")


def get_one(machine: Machine, job: str) -> str:
    got = machine.run(f"bucketctl get --device phone --job {job} --raw text")
    return got.stdout.strip()


def pid(machine: Machine) -> int:
    return int(machine.property("MainPID"))


# --- the tests


def test_it_starts_at_boot_and_is_ready(machine: Machine) -> None:
    assert machine.run("systemctl is-active bucketd.service").stdout == "active\n"
    assert machine.property("StatusText") == f"serving {SOCKET}"
    assert machine.property("NRestarts") == "0"
    version = int(machine.run("systemctl --version").stdout.split()[1])
    assert machine.property("Type") == ("notify-reload" if version >= 253 else "notify")
    assert machine.run("systemctl --failed --no-legend").stdout == ""
    status = json.loads(machine.run("bucketctl status").stdout)
    assert status["pid"] == pid(machine)
    assert status["store"]["state_dir"] == "/var/lib/bucketd"


def test_directories_and_socket_are_open_to_those_they_are_for(machine: Machine) -> None:
    said = machine.run(
        "stat -c '%U %a' /var/lib/bucketd /run/bucketd /run/bucketd/bucketd.sock /etc/bucketd"
    )
    assert said.stdout.splitlines() == ["bucketd 700", "bucketd 755", "root 666", "root 755"]


def test_the_service_has_no_network_and_no_privilege(machine: Machine) -> None:
    process = f"/proc/{pid(machine)}"
    devices = machine.run(f"tail -n +3 {process}/net/dev").stdout
    assert re.findall(r"(\w+):", devices) == ["lo"]
    status = machine.run(f"cat {process}/status").stdout
    assert re.findall(r"Cap(?:Prm|Eff|Bnd|Amb):\t(\w+)", status) == ["0" * 16] * 4
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_who_may_do_what(machine: Machine) -> None:
    """A stranger without a token gets nothing, with one its own bucket and no other."""
    set_one(machine, "login", SECRET)
    stranger = machine.run("bucketctl list", "alice", check=False)
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert machine.run("bucketctl get", "alice", check=False).returncode == 3
    named = machine.run("bucketctl get --device phone --job login", "alice", check=False)
    assert (named.returncode, SECRET in named.stdout + named.stderr) == (1, False)

    run = "bucketctl run --device phone --job login -- runuser -u alice --"
    script = "bucketctl set n:=1 && echo $BUCKETD_TOKEN && bucketctl list"
    own = machine.run(f"{run} sh -c '{script}'", check=False)
    assert own.returncode == 1  # list is not for automations
    written, token = own.stdout.splitlines()
    assert json.loads(written) == {"text": SECRET, "n": 1}
    tokens.append(token)
    # Not on a command line, which the journal would note for whatever else logs.
    machine.put("/srv/token", token)
    after = machine.run("BUCKETD_TOKEN_FILE=/srv/token bucketctl get", "alice", check=False)
    assert after.returncode == 3  # it was revoked when the command ended


def test_the_journal_has_text_and_fields(machine: Machine) -> None:
    set_one(machine, "told", SECRET)
    entry = "journalctl -u bucketd.service -o {} DEVICE=phone JOB=told"
    (told,) = machine.run(entry.format("cat")).stdout.splitlines()
    assert re.fullmatch(
        r"root, uid 0 \(pid \d+, bucketctl/[\d.]+ \(set\)\): "
        r"PATCH /v1/devices/phone/jobs/told/bucket, revision 1",
        told,
    )
    fields = json.loads(machine.run(entry.format("json")).stdout)
    assert (fields["REVISION"], fields["OPERATOR_UID"], fields["PRIORITY"]) == ("1", "0", "6")
    assert fields["_SYSTEMD_UNIT"] == "bucketd.service"


def test_a_member_of_the_group_is_an_operator(machine: Machine) -> None:
    """The refusal says the command; a new login has the group."""
    refused = machine.run("bucketctl list", "bob", check=False)
    (command,) = re.findall(r"operator: sudo (.+), then log in", refused.stderr)
    assert command == "usermod -aG bucketd $USER"
    machine.run(f"USER=bob; {command}")
    machine.run("bucketctl list", "bob")
    assert machine.run("ls /var/lib/bucketd", "bob", check=False).returncode == 2
    machine.run("gpasswd --delete bob bucketd")
    assert machine.run("bucketctl list", "bob", check=False).returncode == 1


def test_a_reload_picks_up_the_configuration(machine: Machine) -> None:
    before = pid(machine)
    assert machine.run("bucketctl list", "alice", check=False).returncode == 1
    machine.put("/etc/bucketd/bucketd.d/10.toml", '[access]\noperator_groups = ["alice"]\n')
    machine.run("systemctl reload bucketd.service")
    if machine.property("Type") == "notify":  # which does not wait for the end of a reload
        machine.wait_for("bucketctl list", 5, "alice")
    machine.run("bucketctl list", "alice")
    assert machine.run("bucketctl list", "bob", check=False).returncode == 1

    machine.put("/etc/bucketd/bucketd.d/10.toml", "[access]\noperator_group = []\n")
    refused = machine.run("systemctl reload bucketd.service", check=False)
    assert (refused.returncode, "failed" in refused.stderr) == (1, True)
    machine.wait_for("systemctl show -p StatusText bucketd | grep 'stay in force'", 5)
    assert machine.run("systemctl is-active bucketd.service").stdout == "active\n"
    machine.run("bucketctl list", "alice")
    assert "[access] has no operator_group" in machine.run("bucketctl doctor", check=False).stdout

    machine.run("rm -r /etc/bucketd/bucketd.d && systemctl reload bucketd.service")
    machine.wait_for("! bucketctl list", 5, "alice")
    assert pid(machine) == before


def test_a_backup_restores_what_was_lost(machine: Machine) -> None:
    """By the service that the timer starts, which is off; with all of the state gone meanwhile."""
    assert machine.run("systemctl is-enabled bucketd-backup.timer", check=False).stdout == (
        "disabled\n"
    )
    assert "there is none yet" in machine.run("bucketctl doctor", check=False).stdout
    set_one(machine, "backed-up", SECRET)
    machine.put("/srv/schema.json", '{"type": "object", "maxProperties": 9}')
    machine.run("bucketctl schema set shop /srv/schema.json")
    before = machine.run("bucketctl export | sort").stdout
    for _ in range(2):
        machine.run("systemctl start bucketd-backup.service")
    places = machine.run("ls -d /var/lib/bucketd-backups/*").stdout.split()
    assert len(places) == 2
    modes = machine.run(f"stat -c '%U %a' /var/lib/bucketd-backups {places[0]} {places[0]}/*")
    assert modes.stdout.split("\n")[:-1] == ["bucketd 700"] * 2 + ["bucketd 600"] * 3
    assert "the last one was made" in machine.run("bucketctl doctor", check=False).stdout

    machine.run("systemctl stop bucketd.service bucketd.socket && mv /var/lib/bucketd /srv/lost")
    machine.run("systemctl start bucketd.socket")
    assert json.loads(machine.run("bucketctl list").stdout) == []
    machine.run(f"bucketctl restore {places[1]} --yes")
    assert machine.run("bucketctl export | sort").stdout == before
    assert '"maxProperties": 9' in machine.run("bucketctl schema get shop").stdout
    machine.run("systemctl stop bucketd.service bucketd.socket")
    machine.run("rm -r /var/lib/bucketd && mv /srv/lost /var/lib/bucketd")
    machine.run("systemctl start bucketd.service && bucketctl schema remove shop")


def test_restarts_under_load_fail_no_call(machine: Machine) -> None:
    started = {pid(machine)}
    with calls(machine, PYTHON) as acknowledged:
        for _ in range(5):
            machine.run("systemctl restart bucketd.service")
            started.add(pid(machine))
            time.sleep(0.5)
    assert len(started) == 6
    assert_all_there(machine, acknowledged)


def test_contexts_outlive_a_restart(machine: Machine) -> None:
    """A job that goes on while the daemon is restarted needs no new token."""
    run = machine.start(
        f"bucketctl run --device phone --job daily -- runuser -u alice -- sh -c '{GOING_ON}'"
    )
    machine.wait_for("test -e /tmp/going-on")
    assert machine.run("stat -c '%U %a' /run/bucketd/contexts").stdout == "bucketd 700\n"
    machine.run("systemctl restart bucketd.service && rm /tmp/going-on")
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert get_one(machine, "daily") == SECRET


def test_an_upgrade_under_load_fails_no_call(machine: Machine) -> None:
    with calls(machine, PYTHON) as acknowledged:
        machine.run(INSTALL, timeout=300)
        machine.run("systemctl restart bucketd.service")
    assert_all_there(machine, acknowledged)


def test_the_watchdog_restarts_a_daemon_that_stands_still(machine: Machine) -> None:
    set_one(machine, "watched", "before")
    before, restarts = pid(machine), int(machine.property("NRestarts"))
    machine.run(f"kill -STOP {before}")
    begun = time.monotonic()
    assert get_one(machine, "watched") == "before"  # from the next daemon
    assert 1 < time.monotonic() - begun < 20
    assert pid(machine) != before
    assert int(machine.property("NRestarts")) == restarts + 1
    assert "Watchdog timeout" in machine.run("journalctl -u bucketd.service").stdout


def test_the_watchdog_restarts_a_daemon_that_has_lost_a_background_task(machine: Machine) -> None:
    place, drop_in = "/usr/local/lib/bucketd/defective.py", "/etc/systemd/system/bucketd.service.d"
    machine.put(place, DEFECTIVE)
    machine.put(f"{drop_in}/defective.conf", f"[Service]\nExecStart=\nExecStart={PYTHON} {place}\n")
    machine.run("systemctl daemon-reload && systemctl restart bucketd.service")
    restarts = int(machine.property("NRestarts"))
    machine.wait_for("systemctl show -p StatusText bucketd | grep \"'clock' has ended\"", 15)
    told = json.loads(machine.run("bucketctl status").stdout)["problems"]
    assert told == ["the background task 'clock' has ended; restart bucketd"]
    doctor = machine.run("bucketctl doctor", check=False)
    assert (doctor.returncode, told[0] in doctor.stdout) == (1, True)
    machine.wait_for(f"[ $(systemctl show --value -p NRestarts bucketd) -gt {restarts} ]", 30)
    machine.run(f"rm {place} {drop_in}/defective.conf")
    machine.run("systemctl daemon-reload && systemctl restart bucketd.service")
    assert json.loads(machine.run("bucketctl status").stdout)["problems"] == []


def test_killed_it_is_restarted_and_nothing_is_lost(machine: Machine) -> None:
    for n in range(5):
        restarts = int(machine.property("NRestarts"))
        set_one(machine, "killed", f"{SECRET}-{n}")
        machine.run(f"kill -KILL {pid(machine)}")
        assert get_one(machine, "killed") == f"{SECRET}-{n}"
        assert int(machine.property("NRestarts")) == restarts + 1


def test_a_stop_flushes(machine: Machine) -> None:
    """In the middle of writes: what was acknowledged is in the files, and nothing else."""
    machine.run("rm -f /tmp/stop")
    running = [caller(machine, PYTHON, n, 2) for n in range(4)]
    time.sleep(1)
    machine.run("systemctl stop bucketd.service bucketd.socket && touch /tmp/stop")
    acknowledged = [int(process.communicate(timeout=60)[0].split()[0]) for process in running]
    for n, count in enumerate(acknowledged):
        text = machine.run(f"cat /var/lib/bucketd/devices/load/jobs/{n}.json").stdout
        assert json.loads(text)["bucket"]["n"] == count > 0
    assert machine.property("Result") == "success"
    assert machine.property("ExecMainStatus") == "0"
    assert machine.run("bucketctl status", check=False).returncode == 4
    machine.run("systemctl start bucketd.socket")
    assert_all_there(machine, acknowledged)  # the first call starts it


def test_the_exposure(machine: Machine) -> None:
    said = machine.run("systemd-analyze security --no-pager bucketd.service").stdout
    figure = re.search(r"Overall exposure level for bucketd.service: ([\d.]+)", said)
    assert figure is not None
    assert float(figure[1]) <= 0.6


def test_a_daemon_of_ones_own(machine: Machine) -> None:
    uid = machine.run("id -u alice").stdout.strip()
    machine.run("loginctl enable-linger alice")
    machine.wait_for(f"test -S /run/user/{uid}/systemd/private")
    own = f"export XDG_RUNTIME_DIR=/run/user/{uid} HOME=/home/alice; "
    machine.run(f"{own} systemctl --user enable --now bucketd.service", "alice")
    machine.run(f"{own} bucketctl set --device phone --job mine text=mine", "alice")
    status = json.loads(machine.run(f"{own} bucketctl status", "alice").stdout)
    assert status["store"]["state_dir"] == "/home/alice/.local/state/bucketd"
    assert status["socket"] == f"/run/user/{uid}/bucketd/bucketd.sock"
    before = status["pid"]
    machine.run(f"{own} systemctl --user restart bucketd.service", "alice")
    status = json.loads(machine.run(f"{own} bucketctl status", "alice").stdout)
    assert status["pid"] != before
    assert machine.run("bucketctl get --device phone --job mine").stdout.strip() == "{}"
    machine.run(f"{own} systemctl --user disable --now bucketd.socket bucketd.service", "alice")


def test_the_journal_holds_no_secret(machine: Machine) -> None:
    said = machine.run("journalctl -o json -u bucketd.service").stdout
    assert "settings reloaded" in said
    assert tokens != []
    assert [secret for secret in (SECRET, *tokens) if secret in said] == []
    everything = machine.run("journalctl -o json").stdout
    assert [token for token in tokens if token in everything] == []


def test_uninstall_leaves_the_buckets(machine: Machine) -> None:
    def found() -> subprocess.CompletedProcess[str]:
        places = "/usr/local /etc/systemd /etc/bucketd /lib/systemd"
        return machine.run(f"find {places} -name '*bucket*' 2>/dev/null", check=False)

    kept = machine.run("cat /var/lib/bucketd/devices/phone/jobs/login.json").stdout
    machine.run("make -s -C /src uninstall")
    assert found().stdout.split() == ["/etc/systemd/system/bucketd.service.d"]  # the test's own
    assert machine.run("cat /var/lib/bucketd/devices/phone/jobs/login.json").stdout == kept
    machine.run(f"{INSTALL} && systemctl enable --now bucketd.service", timeout=300)
    assert get_one(machine, "login") == SECRET

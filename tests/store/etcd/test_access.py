"""How a host is let in to etcd: certificates, passwords, and what a user may do."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Authority, Certificates, Cluster, Host, cluster
from harness import pair
from sse import Stream

PATH = pair("phone", "job")


@contextlib.contextmanager
def running(host: Host, **settings: str) -> Iterator[Host]:
    host.env |= {f"BUCKETD_STORE_ETCD_{name.upper()}": value for name, value in settings.items()}
    try:
        host.start()
        yield host
    finally:
        host.remove()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def closed(certificates: Certificates) -> Iterator[Cluster]:
    with cluster(1, tls=certificates) as found:
        yield found


def test_a_certificate_lets_in(closed: Cluster, certificates: Certificates) -> None:
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    given = {name: certificates.file(file) for name, file in files.items()}
    with running(closed.host(), **given) as host:
        assert host.request("PATCH", PATH, {"a": 1}).bucket == {"a": 1}
    with running(closed.host(), **given) as host:
        assert host.request("GET", PATH).bucket == {"a": 1}


@pytest.mark.parametrize("lacking", ["ca", "cert"])
def test_without_it_nothing_is_read_or_written(
    closed: Cluster, certificates: Certificates, lacking: str
) -> None:
    """Neither does the host trust a node whose authority it does not know."""
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    without = {"ca": ("ca",), "cert": ("cert", "key")}[lacking]
    given = {n: certificates.file(f) for n, f in files.items() if n not in without}
    with running(closed.host(), **given, timeout_seconds="0.5") as host:
        for method, body in (("GET", None), ("PATCH", {"stolen": 1})):
            answer = host.request(method, PATH, body)
            assert (answer.status, answer.json["code"]) == (503, "overloaded")
            assert "etcd" in answer.json["error"]
    assert all(b"stolen" not in value for value in closed.stored_values("/bucketd/").values())


class ForAnyone(Certificates):
    """Of nodes that show a certificate and ask for none."""

    @property
    def options(self) -> list[str]:
        return super().options[:4]


def test_authorities_of_the_system_are_trusted_where_none_is_named(tmp_path: Path) -> None:
    certificates = ForAnyone(tmp_path)
    with cluster(1, tls=certificates) as found:
        trusting = found.host(SSL_CERT_FILE=certificates.file("ca.pem"))
        with running(trusting) as host:
            assert host.request("PATCH", PATH, {"a": 1}).bucket == {"a": 1}
        with running(found.host(), timeout_seconds="0.5") as host:
            assert host.request("GET", PATH).status == 503


def test_a_certificate_that_cannot_be_read_is_told_at_the_start(closed: Cluster) -> None:
    host = closed.host(BUCKETD_STORE_ETCD_CERT="/nowhere.pem")
    try:
        host.spawn()
        assert host.process is not None
        assert host.process.wait(20) != 0
        assert "cannot use ca, cert and key of [store.etcd]" in host.log
    finally:
        host.remove()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    with cluster(1) as found:
        yield found


@pytest.fixture(scope="module")
def authority(guarded: Cluster) -> Authority:
    return Authority(guarded)


def credentials(home: Path, text: str) -> str:
    """As systemd gives them to a unit."""
    (home / "credentials").mkdir(exist_ok=True)
    (home / "credentials" / "etcd-password").write_text(text)
    return str(home / "credentials")


@pytest.mark.usefixtures("authority")
def test_a_credential_of_systemd_is_the_password(guarded: Cluster, tmp_path: Path) -> None:
    given = credentials(tmp_path, "farm secret\n")
    host = guarded.host(CREDENTIALS_DIRECTORY=given)
    with running(host, user="farm", prefix="/farm/alone/"):
        assert host.request("PATCH", PATH, {"a": 1}).bucket == {"a": 1}
        hosts = host.request("GET", "/v1/status").json["store"]["hosts"]
        assert len(hosts) == 1
        assert "farm secret" not in host.log + host.request("GET", "/v1/status").body.decode()


@pytest.mark.usefixtures("authority")
def test_a_prefix_that_the_user_may_not_use_is_told(guarded: Cluster, tmp_path: Path) -> None:
    host = guarded.host(CREDENTIALS_DIRECTORY=credentials(tmp_path, "farm secret"))
    with running(host, user="farm", prefix="/other/", stale_reads="5m"):
        for method, body in (("GET", None), ("PATCH", {"a": 1})):
            answer = host.request(method, PATH, body)
            assert (answer.status, answer.json["code"]) == (500, "internal")
            assert "permission denied" in answer.json["error"]
            assert "what that user may do" in answer.json["error"]


def test_a_password_that_changes_lets_nobody_in_on_old_news(
    guarded: Cluster, authority: Authority, tmp_path: Path
) -> None:
    """Reads are refused too: an opt-in to stale reads is no way around the cluster's refusal."""
    host = guarded.host(CREDENTIALS_DIRECTORY=credentials(tmp_path, "farm secret"))
    with running(host, user="farm", prefix="/farm/", stale_reads="5m"):
        path = pair("kept out", "job")
        host.request("PATCH", path, {"a": 1})
        authority.change_password("changed")
        try:
            for method, body in (("GET", None), ("PATCH", {"a": 2})):
                answer = host.request(method, path, body)
                assert answer.status == 500, answer
                assert "it refuses this daemon" in answer.json["error"]
        finally:
            authority.change_password("farm secret")
        assert host.request("PATCH", path, {"a": 3}).bucket == {"a": 3}


def test_a_token_from_before_users_were_changed_is_replaced(tmp_path: Path) -> None:
    """etcd refuses a JWT then, by another error than an expired one."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    make = ["genrsa", "-out", private, "2048"]
    for words in (make, ["rsa", "-in", private, "-pubout", "-out", public]):
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
    jwt = f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m"
    with cluster(1, "--auth-token", jwt) as one:
        authority = Authority(one)
        host = one.host(CREDENTIALS_DIRECTORY=credentials(tmp_path, "farm secret"))
        with (
            running(host, user="farm", prefix="/farm/"),
            Stream(host, f"{PATH}/events") as stream,
        ):
            assert host.request("PATCH", PATH, {"a": 1}).status == 200
            assert stream.next().data["set"] == {"a": 1}
            authority.add_user("nobody")
            assert host.request("GET", PATH).bucket == {"a": 1}
            assert host.request("PATCH", PATH, {"a": 2}).status == 200
            assert stream.next().data["set"] == {"a": 2}

"""A real etcd cluster on loopback, and daemons of several hosts on it."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from harness import Daemon, encode_name

START_SECONDS = 30.0


class Node:
    """One etcd process; ``url`` is where clients find it."""

    def __init__(
        self, command: list[str], url: str, log: Path, tls: ssl.SSLContext | None = None
    ) -> None:
        self.url, self._command, self._log, self._tls = url, command, log, tls
        self.start()

    @property
    def data(self) -> str:
        """The data directory of the node."""
        return self._command[self._command.index("--data-dir") + 1]

    def start(self) -> None:
        """Start the node with the data in its directory."""
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(self._command, stdout=out, stderr=out)

    def kill(self) -> None:
        """Kill the node with SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def ask(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        text = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, text, headers or {})  # noqa: S310
        opened = urllib.request.urlopen(request, timeout=5, context=self._tls)  # noqa: S310
        with opened as answer:
            return json.load(answer)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@dataclass
class Host(Daemon):
    """A daemon whose buckets are in a cluster, below a prefix."""

    cluster: Cluster | None = None

    @property
    def prefix(self) -> str:
        return self.env["BUCKETD_STORE_ETCD_PREFIX"]

    def bucket_path(self, device: str, job: str | None = None) -> Path:
        """Return the key of a bucket, as a path."""
        name = f"device/{encode_name(device)}"
        return Path(self.prefix, name if job is None else f"job/{name[7:]}/{encode_name(job)}")

    def files(self) -> dict[str, bytes]:
        """Return the values of all buckets in the cluster, by key."""
        assert self.cluster is not None
        return self.cluster.stored_values(self.prefix)


class Cluster:
    """The ``nodes`` of one cluster."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        # The headers of requests to the nodes.
        self.headers: dict[str, str] = {}

    @property
    def endpoints(self) -> str:
        return ",".join(node.url for node in self.nodes)

    def host(self, **settings: str) -> Host:
        """Return the daemon of one host, not started yet."""
        env = {
            "BUCKETD_STORE_ENGINE": "etcd",
            "BUCKETD_STORE_ETCD_ENDPOINTS": self.endpoints,
            "BUCKETD_STORE_ETCD_PREFIX": "/bucketd/",
        }
        home = Path(tempfile.mkdtemp(prefix="bd-"))
        return Host(home, env={**env, **settings}, cluster=self)

    def stored_values(self, prefix: str) -> dict[str, bytes]:
        """Return the values of all buckets below a prefix, by key."""
        begin = prefix.encode()
        end = begin[:-1] + bytes([begin[-1] + 1])
        body = {"key": b64(begin), "range_end": b64(end)}
        rows = self.nodes[0].ask("/v3/kv/range", body, self.headers).get("kvs", ())
        found = {base64.b64decode(kv["key"]).decode(): kv.get("value", "") for kv in rows}
        ours = (f"{prefix}device/", f"{prefix}job/")
        return {k: base64.b64decode(value) for k, value in found.items() if k.startswith(ours)}

    def leader(self) -> Node:
        """Wait for a leader, and return it."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for node in self.nodes:
                with contextlib.suppress(OSError, KeyError):
                    status = node.ask("/v3/maintenance/status", {})
                    if status["leader"] == status["header"]["member_id"]:
                        return node
            time.sleep(0.05)
        raise AssertionError("etcd did not elect a leader")

    def wait(self) -> None:
        """Wait until every node responds."""
        deadline = time.monotonic() + START_SECONDS
        for node in self.nodes:
            while True:
                try:
                    node.ask("/v3/kv/range", {"key": "YQ=="})
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)


class Authority:
    """Enable authentication in a cluster; the user ``farm`` may use ``/farm/`` and nothing else."""

    PERMISSION: ClassVar = {"key": "L2Zhcm0v", "range_end": "L2Zhcm0w"}  # /farm/ to /farm0

    def __init__(self, etcd: Cluster) -> None:
        self._node = etcd.nodes[0]
        for user in ("root", "farm"):
            self._node.ask("/v3/auth/user/add", {"name": user, "password": f"{user} secret"})
            self._node.ask("/v3/auth/role/add", {"name": user})
            self._node.ask("/v3/auth/user/grant", {"user": user, "role": user})
        perm = {"permType": "READWRITE", **self.PERMISSION}
        self._node.ask("/v3/auth/role/grant", {"name": "farm", "perm": perm})
        self._node.ask("/v3/auth/enable", {})
        login = {"name": "root", "password": "root secret"}
        self._token = self._node.ask("/v3/auth/authenticate", login)["token"]
        etcd.headers["Authorization"] = self._token

    def change_password(self, password: str) -> None:
        body = {"name": "farm", "password": password}
        self._node.ask("/v3/auth/user/changepw", body, {"Authorization": self._token})

    def add_user(self, name: str) -> None:
        body = {"name": name, "password": f"{name} secret"}
        self._node.ask("/v3/auth/user/add", body, {"Authorization": self._token})

    def shut_out(self) -> None:
        body = {"role": "farm", **self.PERMISSION}
        self._node.ask("/v3/auth/role/revoke", body, {"Authorization": self._token})

    def let_in(self) -> None:
        body = {"name": "farm", "perm": {"permType": "READWRITE", **self.PERMISSION}}
        self._node.ask("/v3/auth/role/grant", body, {"Authorization": self._token})


@contextlib.contextmanager
def cluster(size: int, *options: str, tls: Certificates | None = None) -> Iterator[Cluster]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed: apt install etcd-server")
    home = Path(tempfile.mkdtemp(prefix="bd-etcd-"))
    kinds = ["https" if tls else "http"] * size + ["http"] * size
    ports = zip(kinds, _ports(2 * size), strict=True)
    urls = [f"{kind}://127.0.0.1:{port}" for kind, port in ports]
    peers = ",".join(f"n{i}={urls[size + i]}" for i in range(size))
    nodes: list[Node] = []
    try:
        for i in range(size):
            command = ["etcd", "--name", f"n{i}", "--data-dir", str(home / f"n{i}"), *options]
            command += ["--listen-client-urls", urls[i], "--advertise-client-urls", urls[i]]
            command += ["--listen-peer-urls", urls[size + i], "--initial-cluster", peers]
            command += ["--initial-advertise-peer-urls", urls[size + i]]
            command += tls.options if tls else []
            context = tls.context if tls else None
            nodes.append(Node(command, urls[i], home / f"n{i}.log", context))
        found = Cluster(nodes)
        found.wait()
        yield found
    finally:
        for node in nodes:
            node.kill()
        shutil.rmtree(home, ignore_errors=True)


class Certificates:
    """A certificate authority, and its certificates of the nodes and of a client."""

    def __init__(self, home: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self._home = home
        self._openssl(
            "req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"
        )
        for name in ("node", "client"):
            self._openssl("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "csr")
            (home / "ext").write_text("subjectAltName=IP:127.0.0.1")
            signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext")
            self._openssl("x509", "-req", "-in", "csr", *signed, "-out", f"{name}.pem")

    def _openssl(self, *words: str) -> None:
        new = ["-newkey", "rsa:2048", "-nodes"] if words[0] == "req" else []
        command = ["openssl", *words, *new]
        subprocess.run(command, cwd=self._home, check=True, capture_output=True, timeout=60)

    def file(self, name: str) -> str:
        return str(self._home / name)

    @property
    def options(self) -> list[str]:
        """The options with which etcd accepts only clients with a certificate of the authority."""
        found = ["--cert-file", self.file("node.pem"), "--key-file", self.file("node.key")]
        return [*found, "--client-cert-auth", "--trusted-ca-file", self.file("ca.pem")]

    @property
    def context(self) -> ssl.SSLContext:
        found = ssl.create_default_context(cafile=self.file("ca.pem"))
        found.load_cert_chain(self.file("client.pem"), self.file("client.key"))
        return found


def b64(text: bytes) -> str:
    """Encode a key or value for etcd's gateway."""
    return base64.b64encode(text).decode()


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)

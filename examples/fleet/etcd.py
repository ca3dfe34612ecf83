"""Three nodes of etcd on this machine, for the demo; standard library only."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo_stage import Failed, command
from demo_tools import Program

SIZE = 3
START_SECONDS = 30.0


class Node(Program):
    """One etcd process, with its directory and its two ports."""

    def __init__(self, name: str, home: Path, url: str, peer: str, members: str) -> None:
        self.name, self.url = name, url
        argv = ["etcd", "--name", name, "--data-dir", str(home / name)]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        argv += ["--initial-cluster", members]
        super().__init__(argv, home / f"{name}.log", "apt install etcd-server")

    def start(self) -> None:
        command(f"etcd --name {self.name} --listen-client-urls {self.url} …")
        self.spawn()

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())  # noqa: S310
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
            return json.load(answer)

    def value(self, key: str) -> str:
        """Return the value of a key."""
        found = self.ask("/v3/kv/range", {"key": base64.b64encode(key.encode()).decode()})
        return base64.b64decode(found["kvs"][0]["value"]).decode()


class Cluster:
    """The nodes, which are started and stopped together or one by one."""

    def __init__(self, home: Path) -> None:
        urls = [f"http://127.0.0.1:{port}" for port in _free_ports(2 * SIZE)]
        peers = urls[SIZE:]
        members = ",".join(f"n{i + 1}={peer}" for i, peer in enumerate(peers))
        self.nodes = [Node(f"n{i + 1}", home, urls[i], peers[i], members) for i in range(SIZE)]

    @property
    def endpoints(self) -> list[str]:
        return [node.url for node in self.nodes]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            self.wait(node)

    def wait(self, node: Node) -> None:
        """Wait until a node answers requests. Raises Failed if it does not."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                node.ask("/v3/kv/range", {"key": "YQ=="})
                return
            time.sleep(0.05)
        raise Failed(f"etcd {node.name} did not get ready")

    def leader(self) -> Node:
        """Return the current leader. Raises Failed if there is none."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                status = node.ask("/v3/maintenance/status", {})
                if status["leader"] == status["header"]["member_id"]:
                    return node
        raise Failed("etcd has no leader")

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]

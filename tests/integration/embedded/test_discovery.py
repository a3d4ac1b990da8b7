"""The life of the embedded network's process: who starts it, who outlives whom, what is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from support.timing import limit

from agentkit.embedded import discovery
from agentkit.errors import StoreUnavailable

CLIENT = (
    "import sys; from pathlib import Path; from agentkit.embedded import discovery;"
    "print(discovery.ensure(Path(sys.argv[1]), '60').pid, flush=True)"
)


def client(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(folder)], stdout=subprocess.PIPE, text=True
    )


def gone(pid: int, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not discovery._alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_clients_that_race_from_nothing_get_one_network(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    clients = [client(folder) for _ in range(6)]
    pids = {int(c.communicate(timeout=limit(60))[0]) for c in clients}
    assert len(pids) == 1
    assert all(c.returncode == 0 for c in clients)
    (pid,) = pids
    assert discovery.find(folder)  # it outlives the clients that started it
    assert discovery.stop(folder)
    assert gone(pid)
    assert not (folder / discovery.FILE).exists()
    assert discovery.stop(folder) is False


def test_a_killed_network_comes_back_with_its_chain_and_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    first = discovery.ensure(folder, "60")
    os.kill(first.pid, signal.SIGKILL)
    assert gone(first.pid)
    assert (folder / discovery.FILE).exists()  # a stale file misleads nobody
    assert discovery.find(folder) is None
    second = discovery.ensure(folder, "60")
    assert second.pid != first.pid
    for contract in ("token", "channels", "escrow"):
        assert second.network[contract] == first.network[contract] != ""
    assert second.agent_key == first.agent_key
    assert discovery.stop(folder)
    discovery.reset(folder)
    assert not folder.exists()


def test_an_idle_network_ends_itself_with_its_children(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    found = discovery.ensure(folder, "1.5")
    family = [found.pid, *(c.pid for c in psutil.Process(found.pid).children(recursive=True))]
    assert all(gone(pid, 15) for pid in family)
    assert not (folder / discovery.FILE).exists()


def test_a_network_in_the_foreground_is_where_its_port_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_ports(7)
    monkeypatch.setenv("AGENTKIT_NETWORK", str(tmp_path / "net"))
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "agentkit", "network", "serve", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as served:
        until = time.monotonic() + limit(60)
        while not (found := discovery.find(tmp_path / "net")) and time.monotonic() < until:
            time.sleep(0.05)
        assert found
        assert found.pid == served.pid
        where = [found.url, found.network["rpc"], found.gateway, *found.nodes.values()]
        assert where == [f"http://127.0.0.1:{port + n}" for n in range(5)]
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port + 2}/info", timeout=limit(5)
        ) as answer:
            assert json.load(answer)["network"] == "agentkit.embedded"
        served.send_signal(signal.SIGINT)
        assert served.wait(limit(15)) == 0
    with socket.create_server(("127.0.0.1", port + 1)):
        refused = subprocess.run(
            command, capture_output=True, text=True, timeout=limit(60), check=False
        )
    assert refused.returncode == 1
    assert f"port {port + 1} of this machine cannot be had" in refused.stderr


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody has."""
    for port in range(20_000, 60_000, count):
        with ExitStack() as taken:
            try:
                for n in range(count):
                    taken.enter_context(socket.create_server(("127.0.0.1", port + n)))
            except OSError:
                continue
            return port
    raise AssertionError("all ports are taken")


def test_the_file_with_the_token_is_for_its_owner_only(
    network_folder: Path, network: object
) -> None:
    assert (network_folder / discovery.FILE).stat().st_mode & 0o077 == 0
    for key in (network_folder / "keys").iterdir():
        assert key.stat().st_mode & 0o077 == 0


def test_secrets_are_not_in_the_repr(network: discovery.NetworkFile) -> None:
    assert network.token not in repr(network)
    assert network.providers["hyperbolic"]["api_key"] not in repr(network)


def test_all_of_it_listens_on_loopback_only(network: discovery.NetworkFile) -> None:
    listening = [
        c.laddr.ip
        for process in (psutil.Process(network.pid), *psutil.Process(network.pid).children())
        for c in process.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 6
    assert set(listening) == {"127.0.0.1"}


def test_a_network_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chain.db").write_text("not a database")
    monkeypatch.setattr(discovery, "START_SECONDS", 20.0)
    with pytest.raises(StoreUnavailable, match="did not start") as raised:
        discovery.ensure(tmp_path)
    assert discovery.LOG in raised.value.hint

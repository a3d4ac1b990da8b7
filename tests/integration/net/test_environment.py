"""No child process of ours holds a secret of ours in its environment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.keystore_files import PASSPHRASE, write_keystore
from support.secrets_in_environment import CANARY, canary
from support.timing import limit

from agentkit.embedded import discovery
from agentkit.keys.process_signer import ProcessSigner
from agentkit.pool.child import Child

__all__ = ["canary"]


pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode()


def harmless(pid: int) -> bool:
    """Whether a process has an environment, which the kernel shows soon after it began."""
    deadline = time.monotonic() + limit(10)
    while "PATH=" not in (told := environment_of(pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return "PATH=" in told and CANARY not in told and "PASSPHRASE" not in told


async def test_a_slot_inherits_no_secret(tmp_path: Path) -> None:
    child = await Child.start("agentkit.pool.worker_child", tmp_path, threads=1, nice=0)
    try:
        assert harmless(child.pid)
    finally:
        await child.kill()


def test_the_signer_inherits_no_secret(tmp_path: Path) -> None:
    write_keystore(tmp_path / "key.json")
    signer = ProcessSigner.start(tmp_path / "key.json", PASSPHRASE, real=False)
    try:
        assert signer._child
        assert harmless(signer._child.pid)
    finally:
        signer.close()


def test_the_network_and_its_slots_inherit_no_secret(tmp_path: Path) -> None:
    network = discovery.ensure(tmp_path / "network")
    try:
        assert harmless(network.pid)
        assert CANARY not in (tmp_path / "network" / discovery.LOG).read_text()
    finally:
        discovery.stop(tmp_path / "network")

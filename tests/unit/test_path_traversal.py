"""Names that were typed or received, and the files that they must not become."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit.artifacts import Blob
from agentkit.embedded.gateway.files import ContentFiles
from agentkit.errors import RunNotFound, StateCorrupt, StoreUnavailable
from agentkit.journal.lease import Lease, is_free
from agentkit.memory.artifacts.local import LocalStore

NAMES = ["../outside", "/dev/zero", "a/b", "..", "", "x" * 300, "nul\0", "new\nline"]


@pytest.mark.parametrize("name", NAMES)
def test_no_lease_is_written_for_what_is_no_run(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "home" / "leases"
    with pytest.raises(RunNotFound):
        Lease(folder, name)
    with pytest.raises(RunNotFound):
        is_free(folder, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*NAMES, "AB" * 32, "ab" * 32 + "\n"])
async def test_no_store_opens_what_is_no_digest(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    with pytest.raises(StoreUnavailable, match="not the sha256"):
        await LocalStore(tmp_path / "artifacts").get(Blob(name, 1, ""))
    with pytest.raises(StateCorrupt, match="not the sha256"):
        ContentFiles(tmp_path / "content").get(name)

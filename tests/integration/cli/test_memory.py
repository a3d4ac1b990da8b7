"""`agentkit memory`: restoring with nothing but a key file and a gateway, and looking inside."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.processes.gateway import serving
from typer.testing import CliRunner, Result

from agentkit.cli.main import app
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys import keystore
from agentkit.keys.keystore import create_test_key
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.sealing.backlog import seal_all

Verb = Callable[..., Result]
RUN = "r00000001"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("weave")) as url:
        yield url


@pytest.fixture
def cli(tmp_path: Path, gateway: str, monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Return a function that runs a memory verb on another machine than the one that sealed."""
    create_test_key(tmp_path / "key.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTKIT_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("AGENTKIT_NETWORK", str(tmp_path / "no-network"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(verb: str, *arguments: str, ask: bool = True) -> Result:
        where = ["--gateway", gateway] if ask else []
        return CliRunner().invoke(
            app, ["memory", verb, *arguments, "--keystore", "key.json", *where]
        )

    return run


def logged(folder: Path, url: str, lost: int = 0) -> None:
    """Seal three segments of two events and one of a run, and post all but one of them."""

    async def go() -> None:
        signer = keystore.unlock(folder / "key.json", real=False)
        journal = await Journal.open(folder / "old" / signer.address.lower(), signer.address)
        step = e.Extra(owner="test", version=1, json_text='"a step"')
        await journal.commit(lambda tx: tx.append(RUN, step))
        for number in range(6):
            note = e.NoteAdded(topic="t", text=f"note {number}")
            await journal.commit(lambda tx, note=note: tx.append(e.WALLET, note))
            if number % 2:
                await journal.commit(lambda tx: seal_all(tx, signer))
        sealed = await journal.commit(lambda tx: tx.outbox.in_states("sealed"))
        await journal.close()
        async with Gateways([url]) as gateways:
            for segment in sealed:
                if (segment.stream, segment.first) != (e.WALLET, lost):
                    await gateways.post_item(segment.raw)

    asyncio.run(go())


def test_a_log_is_restored_looked_at_and_compared(cli: Verb, tmp_path: Path, gateway: str) -> None:
    logged(tmp_path, gateway)
    restored = cli("restore", "--json")
    assert restored.exit_code == 0, restored.output
    told = json.loads(restored.stdout)
    assert (told["events"], told["runs"], told["left"]) == (7, 1, 0)
    assert told["warnings"][0].startswith("head not corroborated")

    table = cli("ls", ask=False).stdout
    assert f"{RUN}  " in table
    assert "it alone restores everything" in table
    rows = json.loads(cli("ls", "--json", ask=False).stdout)["streams"]
    assert {(row["stream"], row["events"], row["not sealed"]) for row in rows} == {
        (RUN, 1, 0),
        ("wallet", 7, 1),  # and that it was restored
    }
    (line,) = cli("get", RUN, "--quiet").stdout.splitlines()
    assert json.loads(line)["owner"] == "test"
    assert "no gateway has any step" in cli("get", "r99999999").stderr

    assert "7 events on Arweave equal those here" in cli("verify").stdout
    assert json.loads(cli("verify", RUN, "--json").stdout)["events"] == 1
    assert cli("restore", RUN).exit_code == 0  # it is all here already
    again = cli("restore")
    assert again.exit_code == 1
    assert "already has state here" in again.stderr


def test_a_gap_stops_a_restore_until_the_loss_is_accepted(
    cli: Verb, tmp_path: Path, gateway: str
) -> None:
    logged(tmp_path, gateway, lost=3)
    stopped = cli("restore")
    assert stopped.exit_code == 1
    sentence = "steps 3 to 4 of wallet are missing on the only gateway; the last good step is 2"
    assert sentence in stopped.stderr
    assert "agentkit memory restore --accept-loss" in stopped.stderr
    assert not (tmp_path / "new").exists()
    accepted = cli("restore", "--accept-loss")
    assert accepted.exit_code == 0
    assert f"warning: {sentence}" in accepted.stdout
    verified = cli("verify")
    assert verified.exit_code == 1  # it is said for as long as it is so
    assert sentence in verified.stdout


def test_state_that_differs_from_what_was_sealed_is_found(
    cli: Verb, tmp_path: Path, gateway: str
) -> None:
    logged(tmp_path, gateway)
    cli("restore")
    (path,) = (tmp_path / "new").glob("*/state.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("update events set body=replace(body, 'note 1', 'note 7')")
    damaged = cli("verify")
    assert damaged.exit_code == 1
    assert "is damaged at wallet event 2" in damaged.stderr
    assert "agentkit memory restore" in damaged.stderr


def test_nothing_is_made_where_nothing_is(cli: Verb, tmp_path: Path) -> None:
    nothing = cli("restore")
    assert nothing.exit_code == 1
    assert "no gateway has any agentkit state for address" in nothing.stderr
    for verb in ("verify", "ls"):
        none = cli(verb, ask=verb == "verify")
        assert "there is no state file" in none.stderr
    assert not (tmp_path / "new").exists()

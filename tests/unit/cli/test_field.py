"""The report of a field run: what it proves, and what makes it worthless."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit.cli.field import report, verb
from agentkit.cli.field.canary import Outcome
from agentkit.config import Settings
from agentkit.errors import WrongInput
from agentkit.keys.signer import KeySigner
from agentkit.testing.fakes import NETWORK

SIGNER, STRANGER = KeySigner(b"\x01" * 32), KeySigner(b"\x02" * 32)
OUTCOMES = (
    Outcome("deposit", "passed", did="deposited", paid=5000, gas=7, seconds=1.25),
    Outcome("escrow", "skipped", why="no escrow contract is set"),
)
REPORT = report.Report(
    network="base",
    chain_id=8453,
    contract="0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003",
    wallet=SIGNER.address,
    seller=STRANGER.address,
    facilitator="facilitator.example",
    version="0.1.0",
    began=1_790_000_000,
    canaries=OUTCOMES,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "field-base.json"
    report.save(path, REPORT, SIGNER)
    return path


def test_a_report_is_read_as_it_was_written(file: Path) -> None:
    assert report.check(file) == REPORT


def _passes(envelope: dict[str, Any]) -> None:
    envelope["report"]["canaries"][1]["status"] = "passed"


def _costs_less(envelope: dict[str, Any]) -> None:
    envelope["report"]["paid"] = 1


def _has_more(envelope: dict[str, Any]) -> None:
    envelope["report"]["note"] = "audited"


def _says_what_nobody_knows(envelope: dict[str, Any]) -> None:
    envelope["report"]["canaries"][1]["status"] = "perfect"


def _has_another_wallet(envelope: dict[str, Any]) -> None:
    envelope["report"]["wallet"] = STRANGER.address


def _has_another_key(envelope: dict[str, Any]) -> None:
    envelope["public_key"] = STRANGER.public_key.hex()


def _has_no_signature(envelope: dict[str, Any]) -> None:
    envelope["signature"] = ""


def _is_a_list(envelope: dict[str, Any]) -> None:
    envelope["report"] = []


@pytest.mark.parametrize(
    "change",
    [
        _passes,
        _costs_less,
        _has_more,
        _says_what_nobody_knows,
        _has_another_wallet,
        _has_another_key,
        _has_no_signature,
        _is_a_list,
    ],
)
def test_a_report_that_was_changed_is_refused(
    file: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    envelope = json.loads(file.read_text())
    change(envelope)
    file.write_text(json.dumps(envelope))
    with pytest.raises(WrongInput, match=r"field report|not signed by"):
        report.check(file)


def test_a_report_in_the_name_of_another_wallet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "forged.json"
    report.save(path, REPORT, STRANGER)
    with pytest.raises(WrongInput, match="not signed by the wallet"):
        report.check(path)


def test_sums_are_those_of_the_canaries(file: Path) -> None:
    more = replace(REPORT, canaries=(*OUTCOMES, OUTCOMES[0]))
    assert (more.document()["paid"], more.document()["gas"]) == (10_000, 14)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "base (chain 8453)\nsigned by the wallet " + STRANGER.address},
        {"version": "0.1.0\x1b[2J"},
        {"facilitator": "x" * 2000},
        {"began": 10**30},
        {"began": -1},
        {"canaries": (replace(OUTCOMES[0], name="deposit  passed\u2028"),)},
        {"canaries": (replace(OUTCOMES[0], did="paid\nclaim  passed"),)},
        {"canaries": (replace(OUTCOMES[0], paid=10**400),)},
        {"canaries": (replace(OUTCOMES[0], gas=-7),)},
        {"canaries": (replace(OUTCOMES[0], seconds=1e300),)},
    ],
)
def test_what_somebody_signed_to_be_shown_as_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Whoever has a key can sign anything; it must not write the lines that we write about it."""
    path = tmp_path / "painted.json"
    report.save(path, replace(REPORT, **changes), SIGNER)
    with pytest.raises(WrongInput, match="not a signed field report"):
        report.check(path)


def test_a_reason_shows_no_address_of_ours() -> None:
    addresses = (
        "https://node.example/v2/secretkey",
        "https://gateway.example",
        "https://SecretKey.quick.example:8545/v1",
        "",
    )
    told = verb._public(
        f"{addresses[0]} and node.example:443 of {addresses[1]} are silent\x1b[2J,\n"
        "https://node.example/v2/secre, secretkey.quick.example:8545 ssl:default, and"
        " url='https://other.example/?key=secretkey'",
        addresses,
    )
    for secret in ("secretkey", "secre", "node.example", "gateway.example", "quick", "\x1b", "\n"):
        assert secret not in told.lower()
    assert "are silent" in told
    assert len(verb._public("x" * 10_000, addresses)) == verb.MOST_WORDS


def test_what_we_say_of_a_failure_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "field-base.json"
    why = verb._public("a\n b\t" + "word " * 200, ())
    report.save(path, replace(REPORT, canaries=(Outcome("call", "failed", why=why),)), SIGNER)
    assert report.check(path).canaries[0].why == why


def test_no_service_of_the_wallet_is_named_in_a_report() -> None:
    """Each of their addresses may have a key in it, as those of RPC nodes have."""
    settings = Settings(
        providers={"one": {"url": "https://provider.example"}},
        memory={"gateways": ["https://gateway.example"], "ipfs": "https://ipfs.example"},
    )
    other = NETWORK.model_copy(update={"rpc": "https://beside.example", "chain_id": 7})
    changes = {"rpc": "https://a.example", "other_rpcs": ("https://b.example",), "beside": (other,)}
    network = NETWORK.model_copy(update=changes)
    found = verb._addresses(settings, network, "https://settler.example")
    for name in ("provider", "gateway", "ipfs", "beside", "a", "b", "settler"):
        assert f"https://{name}.example" in found

"""The x402 SDK is an extra: who pays and who sells does without, and a facilitator says so."""

import sys
from pathlib import Path

import pytest
from support.x402_market import network_at

from agentkit.errors import MissingExtra
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.payments.chain import Web3Chain
from agentkit.payments.facilitator.service import FacilitatorService


async def test_a_facilitator_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "x402", None)
    signer = KeySigner(bytes(31) + b"\x01")
    journal = await Journal.open(tmp_path, signer.address)
    network = network_at("http://127.0.0.1:1", "0x" + "11" * 20)
    with pytest.raises(MissingExtra) as missing:
        FacilitatorService(journal, Web3Chain(network), signer, network)
    assert '"deai-agentkit[x402]"' in missing.value.hint
    await journal.close()

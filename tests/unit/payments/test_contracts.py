"""The contracts in the package are what their sources say, and speak the words we sign."""

import json
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import vyper
from support.evm import TOKENS
from vyper.compiler.input_bundle import FilesystemInputBundle

from agentkit.payments.contracts import CANONICAL, build, load

CONFIG = "(address,address,address,address,uint40,bytes32)"
VOUCHER = "(uint128,uint64,bytes32)"
SIGNATURE = "uint8,bytes32,bytes32"
SIGNATURES = f"({SIGNATURE})[]"
QUOTE = (
    "(address,address,address,address,uint128,uint40,uint40,uint40,uint40,uint16,bytes32,bytes32)"
)
CHANNELS = {
    f"fund({CONFIG},uint128)",
    f"fundWithAuthorization({CONFIG},uint128,uint256,{SIGNATURE})",
    f"claim({CONFIG},{VOUCHER},{SIGNATURE})",
    f"claimAndClose({CONFIG},{VOUCHER},{SIGNATURE})",
    f"fundMany({CONFIG}[],uint128[])",
    f"claimMany({CONFIG}[],{VOUCHER}[],{SIGNATURES})",
    f"closeWithRelease({CONFIG},uint128,{SIGNATURE})",
    f"requestClose({CONFIG})",
    f"finishClose({CONFIG})",
    f"channelId({CONFIG})",
    "channels(bytes32)",
    "closingAt(bytes32)",
    "DOMAIN_SEPARATOR()",
    "Funded(bytes32,address,address,uint128,uint128)",
    "Claimed(bytes32,uint128,uint128,uint64,bytes32)",
    "CloseRequested(bytes32,uint40)",
    "Closed(bytes32,uint128)",
}
ESCROW = {
    f"open({QUOTE},{SIGNATURE})",
    f"openMany({QUOTE}[],{SIGNATURES})",
    f"openWithAuthorization({QUOTE},({SIGNATURE}),uint256,{SIGNATURE})",
    f"submit({QUOTE},bytes32)",
    f"accept({QUOTE},uint128,bytes32)",
    f"acceptWithSig({QUOTE},uint128,bytes32,{SIGNATURE})",
    f"acceptMany({QUOTE}[],uint128[],bytes32[],{SIGNATURES})",
    f"dispute({QUOTE},bytes32)",
    f"resolve({QUOTE},uint128)",
    f"claimUnjudged({QUOTE})",
    f"refundUndelivered({QUOTE})",
    f"expireDispute({QUOTE})",
    f"jobIdOf({QUOTE})",
    "jobs(bytes32)",
    "DOMAIN_SEPARATOR()",
    "Opened(bytes32,address,address,uint128,bytes32)",
    "Submitted(bytes32,bytes32)",
    "Disputed(bytes32,bytes32)",
    "Settled(bytes32,uint8,uint128,uint128,bytes32)",
}
ANCHOR = {
    "advance(bytes32,bytes32)",
    "headOf(address)",
    "Advanced(address,bytes32,bytes32)",
}
TOKEN = {
    *("name()", "symbol()", "version()", "decimals()", "DOMAIN_SEPARATOR()", "totalSupply()"),
    "balanceOf(address)",
    "allowance(address,address)",
    "approve(address,uint256)",
    "transfer(address,uint256)",
    "transferFrom(address,address,uint256)",
    "mint(address,uint256)",
    "nonces(address)",
    f"permit(address,address,uint256,uint256,{SIGNATURE})",
    f"transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,{SIGNATURE})",
    f"receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,{SIGNATURE})",
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
    "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
    f"cancelAuthorization(address,bytes32,{SIGNATURE})",
    "authorizationState(address,bytes32)",
    "Transfer(address,address,uint256)",
    "Approval(address,address,uint256)",
    "AuthorizationUsed(address,bytes32)",
    "AuthorizationCanceled(address,bytes32)",
}


@pytest.fixture(scope="module", autouse=True)
def compile_once() -> Iterator[None]:
    """Compile no source twice: it takes seconds."""
    compile_code = vyper.compile_code
    known: dict[str, Any] = {}

    def remembered(source: str, **options: Any) -> Any:
        key = repr((source, options["output_formats"]))
        if key not in known:
            known[key] = compile_code(source, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vyper, "compile_code", remembered)
        yield


@pytest.mark.lengthy
def test_the_stored_bytes_are_what_the_sources_compile_to() -> None:
    for name in build.NAMES:
        assert (build.HERE / f"{name}.json").read_text("utf-8") == build.compiled(name)
    for source in TOKENS.glob("*.vy"):
        stored = source.with_suffix(".json").read_text("utf-8")
        assert stored == build.compiled(source.stem, TOKENS)


@pytest.mark.lengthy
def test_variables_of_the_token_stay_where_they_are() -> None:
    """Chains of earlier versions get today's code at their token's place (chain.canonical)."""
    source = (build.HERE / "TestUSD.vy").read_text("utf-8")
    bundle = FilesystemInputBundle([build.HERE])
    layout = vyper.compile_code(source, output_formats=["layout"], input_bundle=bundle)["layout"]
    slots = {name: given["slot"] for name, given in layout["storage_layout"].items()}
    assert list(slots.items())[:5] == [
        ("totalSupply", 0),
        ("balanceOf", 1),
        ("allowance", 2),
        ("nonces", 3),
        ("authorizationState", 4),
    ]
    places = {name: given["offset"] for name, given in layout["code_layout"].items()}
    assert places == {"DOMAIN_SEPARATOR": 0, "minter": 32}


def test_errors_stand_in_the_abi() -> None:
    """Vyper declares none, so they are read from the source."""
    errors = {name: [e for e in load(name).abi if e["type"] == "error"] for name in CANONICAL}
    assert {e["name"] for e in errors["Permit2"]} == {
        *("InvalidAmount", "InvalidContractSignature", "InvalidNonce", "InvalidSigner"),
        *("InvalidSignatureLength", "SignatureExpired"),
    }
    assert [e["inputs"] for e in errors["Permit2"] if e["name"] == "InvalidAmount"] == [
        [{"name": "", "type": "uint256"}]
    ]
    for name in CANONICAL:
        source = (build.HERE / f"{name}.vy").read_text("utf-8")
        raised = source.count("raw_revert(")
        assert raised >= len(errors[name]) >= (1 if raised else 0)


def test_check_says_what_to_build_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "HeadAnchor.vy").write_text((build.HERE / "HeadAnchor.vy").read_text("utf-8"))
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "NAMES", ("HeadAnchor",))
    monkeypatch.setattr(sys, "argv", ["build"])
    build.main()
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    build.main()
    stored = json.loads((tmp_path / "HeadAnchor.json").read_text())
    (tmp_path / "HeadAnchor.json").write_text(json.dumps(stored | {"bytecode": "0x00"}))
    with pytest.raises(SystemExit, match="HeadAnchor"):
        build.main()


def test_a_loaded_contract_is_a_value() -> None:
    contract = load("AgentChannels")
    assert contract == load("AgentChannels")
    assert len(contract.bytecode) > 1000
    with pytest.raises(FrozenInstanceError):
        contract.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(("AgentChannels", CHANNELS), ("TaskEscrow", ESCROW)),
        *(("HeadAnchor", ANCHOR), ("TestUSD", TOKEN)),
    ],
)
def test_the_abi_has_what_we_call_and_hear(name: str, wanted: set[str]) -> None:
    assert wanted <= set(map(signature, load(name).abi))


def signature(entry: dict[str, Any]) -> str:
    return f"{entry.get('name', '')}({','.join(map(kind, entry.get('inputs', ())))})"


def kind(given: dict[str, Any]) -> str:
    members = f"({','.join(map(kind, given.get('components', ())))})"
    return str(given["type"].replace("tuple", members))

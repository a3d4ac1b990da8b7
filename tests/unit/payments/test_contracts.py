"""The contracts in the package are what their sources say, and speak the words we sign."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from agentkit.keys.messages import Authorization, Domain, Voucher, keccak, typed_digest
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import build, load

CONFIG = "(address,address,address,address,uint40,bytes32)"
VOUCHER = "(uint128,uint64,bytes32)"
SIGNATURE = "uint8,bytes32,bytes32"
CHANNELS = {
    f"fund({CONFIG},uint128)",
    f"fundWithAuthorization({CONFIG},uint128,uint256,{SIGNATURE})",
    f"claim({CONFIG},{VOUCHER},{SIGNATURE})",
    f"claimAndClose({CONFIG},{VOUCHER},{SIGNATURE})",
    f"release({CONFIG})",
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
    f"cancelAuthorization(address,bytes32,{SIGNATURE})",
    "authorizationState(address,bytes32)",
    "Transfer(address,address,uint256)",
    "Approval(address,address,uint256)",
    "AuthorizationUsed(address,bytes32)",
    "AuthorizationCanceled(address,bytes32)",
}
DOMAIN = Domain("AgentChannels", "1", 1337, "0x" + "ab" * 20)
SIGNER = KeySigner(bytes(31) + b"\x07")


def test_the_stored_bytes_are_what_the_sources_compile_to() -> None:
    for name in build.NAMES:
        assert (build.HERE / f"{name}.json").read_text("utf-8") == build.compiled(name)


def test_check_says_what_to_build_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "TestUSD.vy").write_text((build.HERE / "TestUSD.vy").read_text("utf-8"))
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "NAMES", ("TestUSD",))
    monkeypatch.setattr(sys, "argv", ["build"])
    build.main()
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    build.main()
    stored = json.loads((tmp_path / "TestUSD.json").read_text())
    (tmp_path / "TestUSD.json").write_text(json.dumps(stored | {"bytecode": "0x00"}))
    with pytest.raises(SystemExit, match="TestUSD"):
        build.main()


def test_loading_needs_neither_compiler_nor_web3() -> None:
    code = (
        "import sys; from agentkit.payments.contracts import load; load('TestUSD');"
        "sys.exit(bool({'vyper', 'web3', 'eth_abi'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[3])
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_a_loaded_contract_is_a_value() -> None:
    contract = load("AgentChannels")
    assert contract == load("AgentChannels")
    assert len(contract.bytecode) > 1000
    with pytest.raises(FrozenInstanceError):
        contract.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(("name", "wanted"), [("AgentChannels", CHANNELS), ("TestUSD", TOKEN)])
def test_the_abi_has_what_we_call_and_hear(name: str, wanted: set[str]) -> None:
    assert wanted <= set(map(signature, load(name).abi))


def signature(entry: dict[str, Any]) -> str:
    return f"{entry.get('name', '')}({','.join(map(kind, entry.get('inputs', ())))})"


def kind(given: dict[str, Any]) -> str:
    if given["type"] != "tuple":
        return str(given["type"])
    return f"({','.join(map(kind, given['components']))})"


def typed(domain: Domain, name: str, fields: str, values: list[Any]) -> Any:
    """What eth_account makes of the same message."""
    types = [tuple(field.split()) for field in fields.split(",")]
    return encode_typed_data(
        domain_data={
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chain_id,
            "verifyingContract": domain.contract,
        },
        message_types={name: [{"name": label, "type": of} for of, label in types]},
        message_data=dict(zip((label for _, label in types), values, strict=True)),
    )


def test_a_voucher_is_signed_as_other_wallets_sign_it() -> None:
    voucher = Voucher(keccak(b"channel"), 2**127 + 1, 2**63, keccak(b"root"))
    fields = "bytes32 channelId,uint128 cumulative,uint64 tasks,bytes32 receiptsRoot"
    values = [voucher.channel, voucher.cumulative, voucher.tasks, voucher.receipts_root]
    message = typed(DOMAIN, "Voucher", fields, values)
    assert keccak(b"\x19\x01" + message.header + message.body) == typed_digest(DOMAIN, voucher)
    signature = SIGNER.sign_voucher(DOMAIN, voucher)
    assert Account.recover_message(message, signature=signature) == SIGNER.address


def test_an_authorization_is_signed_as_other_wallets_sign_it() -> None:
    domain = Domain("USD Coin", "1", 1337, "0x" + "cd" * 20)
    given = Authorization(SIGNER.address, "0x" + "ab" * 20, 5, 10**10, keccak(b"nonce"))
    fields = (
        "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce"
    )
    values = [given.payer, given.payee, given.units, 0, given.valid_before, given.nonce]
    message = typed(domain, "ReceiveWithAuthorization", fields, values)
    assert keccak(b"\x19\x01" + message.header + message.body) == typed_digest(domain, given)
    signature = SIGNER.sign_authorization(domain, given)
    assert Account.recover_message(message, signature=signature) == SIGNER.address

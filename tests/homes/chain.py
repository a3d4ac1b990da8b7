"""Makes the golden chain file of the version of agentkit that is on the path; see README.md.

PYTHONPATH=CHECKOUT python tests/homes/chain.py tests/homes
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import zstandard
from eth_abi.abi import encode

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.simulate import Call, call
from agentkit.embedded.chain.vm import CHAIN_ID, GENESIS_TIME
from agentkit.keys.messages import Domain, ReceiveAuthorization, UnsignedTransaction, keccak
from agentkit.keys.signer import KeySigner

DEPLOYER, PAYER, SHOP = (KeySigner(number.to_bytes(32, "big")) for number in (1, 2, 3))
MINTED = 10**9
NONCE = keccak(b"an authorization that was used")
CONFIG = "(address,address,address,address,uint40,bytes32)"


def data(signature: str, *arguments: Any) -> bytes:
    """Return the bytes of a call of a function by its signature."""
    inner = signature[signature.index("(") + 1 : -1]
    depth, kinds = 0, [""]
    for letter in inner:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            kinds.append("")
        else:
            kinds[-1] += letter
    return keccak(signature.encode())[:4] + encode([k for k in kinds if k], arguments)


class Writer:
    """Sends transactions to a chain whose clock stands still."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def send(self, who: KeySigner, to: str, call_data: bytes, value: int = 0) -> None:
        nonce = self.chain.state().get_nonce(bytes.fromhex(who.address[2:]))
        plain = UnsignedTransaction(CHAIN_ID, nonce, to, call_data, 500_000, 10**10, 0, value)
        self.chain.send(who.sign_tx(plain)[1])
        (receipt,) = self.chain.receipts(self.chain.head)
        assert receipt.state_root == b"\x01"

    def ask(self, to: str, signature: str, *arguments: Any) -> int:
        wanted = Call(to=bytes.fromhex(to[2:]), data=data(signature, *arguments))
        return int.from_bytes(call(self.chain, wanted, self.chain.next_header()), "big")


def make(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "chain.db")
        rich = {who.address: 10**21 for who in (DEPLOYER, PAYER, SHOP)}
        chain = Chain.open(path, rich=rich, clock=lambda: GENESIS_TIME + 1000)
        at = deploy(chain, (1).to_bytes(32, "big"), {PAYER.address: MINTED})
        writer = Writer(chain)

        # Something in every variable of the token, and money in a channel.
        writer.send(PAYER, at.token, data("transfer(address,uint256)", SHOP.address, 1_000_000))
        writer.send(PAYER, at.token, data("approve(address,uint256)", at.channels, 5_000_000))
        domain = Domain("USD Coin", "1", CHAIN_ID, at.token)
        until = GENESIS_TIME + 10**6
        given = ReceiveAuthorization(PAYER.address, SHOP.address, 70, until, NONCE)
        signature = PAYER.sign_authorization(domain, given)
        v, r, s = signature[64], signature[:32], signature[32:64]
        terms = "address,address,uint256,uint256,uint256,bytes32"
        draw = f"receiveWithAuthorization({terms},uint8,bytes32,bytes32)"
        arguments = (PAYER.address, SHOP.address, 70, 0, until, NONCE, v, r, s)
        writer.send(SHOP, at.token, data(draw, *arguments))
        config = (PAYER.address, PAYER.address, SHOP.address, at.token, 3600, bytes(32))
        writer.send(PAYER, at.channels, data(f"fund({CONFIG},uint128)", config, 2_000_000))
        writer.send(SHOP, PAYER.address, b"", value=12345)

        balance, allowance = "balanceOf(address)", "allowance(address,address)"
        used = "authorizationState(address,bytes32)"
        figures = {
            "number": chain.number,
            "hash": chain.hash.hex(),
            "state_root": chain.head.state_root.hex(),
            "deployed": [at.token, at.channels, at.escrow, at.anchor],
            "payer": writer.ask(at.token, balance, PAYER.address),
            "shop": writer.ask(at.token, balance, SHOP.address),
            "in_channels": writer.ask(at.token, balance, at.channels),
            "supply": writer.ask(at.token, "totalSupply()"),
            "allowance": writer.ask(at.token, allowance, PAYER.address, at.channels),
            "authorization_used": writer.ask(at.token, used, PAYER.address, NONCE),
            "coins": [str(chain.state().get_balance(bytes.fromhex(a[2:]))) for a in rich],
            "nonces": [chain.state().get_nonce(bytes.fromhex(a[2:])) for a in rich],
        }
        chain.close()
        packed = zstandard.ZstdCompressor(level=19).compress(path.read_bytes())
        (folder / "chain.zst").write_bytes(packed)
        (folder / "chain.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))

"""Receipts that others can check: a bundle, and its verifier, which needs nothing but the bundle.

What proves what:  an attempt's id is a digest over run, node, item, provider and terms; a
provider's signature over (attempt, result, price, usage) proves what it delivered and asked for;
the payer's voucher proves what it promised for it, since it names the Merkle root over those
statements (`market.tree`); the contract's own logs prove what moved.  The rest is the payer's own
word, and `proof_of` and `UNPROVEN` say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from agentkit import strict_json
from agentkit.errors import ConfigError, WrongInput
from agentkit.file_io import read_bytes, write_text
from agentkit.journal import events as e
from agentkit.keys.messages import Domain, Voucher, recover, typed_digest
from agentkit.market import tree
from agentkit.market.chain import ChainClient, Network
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event
from agentkit.market.value import Value
from agentkit.money import Asset
from agentkit.payments import abi
from agentkit.payments.channels.terms import deposit_of

VERSION = 1
"""Of the file that a bundle is saved in; a newer one is refused by name."""

MAX_BYTES = 256 << 20
"""The largest bundle that is read: some 100,000 receipts."""


class Paid(Value):
    """One attempt in a channel's tree, and what the voucher grew by for it in base units."""

    attempt: str
    units: int


class ChannelProof(Value):
    """What was promised on one channel: the newest voucher, and what it is made of, in order.

    `base` and `base_root`: the promise that a payer who lost its books was shown; `matched`: the
    attempts whose price, or a part of it, that promise had covered.
    """

    channel: str
    payee: str
    cumulative: int = 0
    tasks: int = 0
    root: str = tree.EMPTY.hex()
    signature: str = ""
    base: int = 0
    base_root: str = ""
    paid: tuple[Paid, ...] = ()
    matched: tuple[Paid, ...] = ()


class Bundle(Value):
    """Receipts of a wallet, with what proves them."""

    version: int = VERSION
    chain_id: int
    channels_contract: str
    token: str
    payer: str
    receipts: tuple[Receipt, ...]
    channels: tuple[ChannelProof, ...]

    @property
    def domain(self) -> Domain:
        """Where vouchers and deliveries of this bundle were signed."""
        return Domain("AgentChannels", "1", self.chain_id, self.channels_contract)

    @property
    def currency(self) -> Asset:
        """What channels and escrows pay in, since signatures are over units alone."""
        return Asset.named("USDC").bind(f"eip155:{self.chain_id}", f"erc20:{self.token}")

    def save(self, path: Path) -> None:
        """Write the bundle as JSON."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        # Always said, although it is a default: a later version has another.
        document = {"version": self.version, **fields}
        write_text(path, json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle; raises ConfigError for anything else."""
        try:
            document = strict_json.loads(read_bytes(path, MAX_BYTES))
            _refuse_newer(path, document)
            return cls.model_validate({"version": 1} | document)
        except WrongInput as unread:
            raise ConfigError(str(unread), hint="check the path") from unread
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} is no bundle of receipts",
                hint="write one with `agentkit receipts --out FILE`",
            ) from error


def _refuse_newer(path: Path, document: Any) -> None:
    if not isinstance(document, dict):
        raise ValueError(f"it is {type(document).__name__}, not an object")  # noqa: TRY004
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(
            f"a newer version of agentkit wrote the bundle {path}: it is of version {version},"
            f" and this agentkit reads version {VERSION}",
            hint="install the newest with `pip install --upgrade deai-agentkit`",
        )


def bundle_of(
    network: Network, payer: str, receipts: Sequence[Receipt], wallet: Iterable[Event]
) -> Bundle:
    """Return all that proves `receipts`; `wallet` are the events of the payer's money, in order."""
    made: dict[str, _Making] = {}
    for event in wallet:
        if isinstance(event, e.ChannelOpened):
            made[event.channel] = _Making(ChannelProof(channel=event.channel, payee=event.payee))
        elif isinstance(event, e.VoucherSigned | e.VoucherFound | e.VoucherMatched):
            made[event.channel].take(event)
    return Bundle(
        chain_id=network.chain_id,
        channels_contract=network.channels,
        token=network.token,
        payer=payer,
        receipts=tuple(receipts),
        channels=tuple(making.proof for making in made.values() if making.proof.cumulative),
    )


class _Making:
    """A channel's proof while the events that it is made of are read."""

    def __init__(self, proof: ChannelProof) -> None:
        self.proof = proof
        self._peaks: tree.Peaks = ()
        self._leaves = 0

    def take(self, event: e.VoucherSigned | e.VoucherFound | e.VoucherMatched) -> None:
        if isinstance(event, e.VoucherMatched):
            part = Paid(attempt=event.attempt, units=event.amount.units)
            self._change(matched=(*self.proof.matched, part))
        elif isinstance(event, e.VoucherSigned):
            units = event.cumulative.units - self.proof.cumulative
            part = Paid(attempt=event.attempt, units=units)
            self._add(bytes.fromhex(event.leaf))
            root = tree.root_of(self._peaks).hex()
            self._promised(event, root=root, paid=(*self.proof.paid, part))
        elif event.cumulative.units > self.proof.cumulative:
            self._start_from(event)

    def _start_from(self, event: e.VoucherFound) -> None:
        """Go on from a promise that was found: what the books knew before is part of it."""
        covered = (*self.proof.matched, *self.proof.paid)
        base = {"base": event.cumulative.units, "base_root": event.root, "paid": ()}
        self._promised(event, **base, root=event.root, matched=covered)
        self._peaks, self._leaves = (), 0
        self._add(tree.leaf_of(bytes.fromhex(event.root)))

    def _add(self, leaf: bytes) -> None:
        self._peaks = tree.added(self._peaks, self._leaves, leaf)
        self._leaves += 1

    def _promised(self, event: e.VoucherSigned | e.VoucherFound, **more: object) -> None:
        units = event.cumulative.units
        tasks = event.tasks
        signature = event.signature
        self._change(cumulative=units, tasks=tasks, signature=signature, **more)

    def _change(self, **changes: object) -> None:
        self.proof = self.proof.model_copy(update=changes)


# -- checking ------------------------------------------------------------------------------------


def verify(bundle: Bundle) -> list[str]:
    """Return what is wrong with a bundle, a sentence for each; nothing else is asked or trusted."""
    by_attempt = {receipt.attempt.id: receipt for receipt in bundle.receipts}
    wrong = ["a receipt stands in it twice"] if len(by_attempt) < len(bundle.receipts) else []
    for receipt in bundle.receipts:
        wrong += _wrong_with(receipt, bundle)
    for proof in bundle.channels:
        wrong += _wrong_with_channel(proof, by_attempt, bundle)
    return wrong


UNPROVEN = "when each receipt was made, what was asked, and the most that it could have cost"
"""What nobody signs, of no receipt."""

Proof = Literal["signature and voucher", "signature", "the payer's word"]
"""What stands behind a receipt: the provider's signature, the payer's voucher, or nothing."""


def proof_of(receipt: Receipt, bundle: Bundle) -> Proof:
    """Return what proves a receipt of a bundle that `verify` found nothing wrong with."""
    if not _is_signed_for(receipt):
        return "the payer's word"
    vouched = {paid.attempt for proof in bundle.channels for paid in proof.paid}
    return "signature and voucher" if receipt.attempt.id in vouched else "signature"


def _is_signed_for(receipt: Receipt) -> bool:
    return receipt.standing == "paid" and receipt.attempt.rail in SIGNED_RAILS


def _wrong_with(receipt: Receipt, bundle: Bundle) -> list[str]:
    """Check a receipt's names, and its provider's statement where its rail has one."""
    name = f"receipt {receipt.attempt.id[:12]}"
    if not receipt.attempt.is_of_this_item:
        return [f"{name}: its attempt is not of that run, node and item"]
    if not receipt.attempt.is_of_these_terms:
        return [f"{name}: its attempt is not at that provider under those terms"]
    billed, elsewhere = receipt.standing == "billed elsewhere", receipt.attempt.rail == "elsewhere"
    if receipt.standing != "uncertain" and billed != elsewhere:
        return [f"{name} cannot be {receipt.standing} over {receipt.attempt.rail}"]
    if not _is_signed_for(receipt):
        return []
    try:
        digest = typed_digest(bundle.domain, receipt.delivery)
        signer = recover(digest, bytes.fromhex(receipt.evidence.signature))
    except (ValueError, OverflowError):
        signer = ""
    if signer.lower() != receipt.attempt.payee.lower():
        return [f"{name} is not signed by {receipt.attempt.payee}"]
    if {receipt.amount.asset, receipt.attempt.at_most.asset} != {bundle.currency}:
        return [f"{name} is not in {bundle.currency.symbol} of this bundle's network"]
    if receipt.amount > receipt.attempt.at_most:
        return [f"{name} is above the attempt's at most"]
    return []


SIGNED_RAILS = ("channel", "escrow")
"""The rails whose providers sign what they deliver."""


def _wrong_with_channel(
    proof: ChannelProof, receipts: dict[str, Receipt], bundle: Bundle
) -> list[str]:
    name = f"channel {proof.channel[:12]}"
    wrong = [] if _is_signed(proof, bundle) else [f"{name}: its voucher is not the payer's"]
    if proof.base + sum(paid.units for paid in proof.paid) != proof.cumulative:
        wrong.append(f"{name}: its voucher is not the sum of what was paid")
    known = [receipts.get(paid.attempt) for paid in proof.paid]
    if None in known:
        return [*wrong, f"{name}: {known.count(None)} of its receipts are missing"]
    there = [receipt for receipt in known if receipt]
    if _root(proof, there) != proof.root:
        wrong.append(f"{name}: its voucher's root is not over these receipts")
    covered: dict[str, int] = {}
    for part in (*proof.paid, *proof.matched):
        covered[part.attempt] = covered.get(part.attempt, 0) + part.units
    for receipt in there:
        if (receipt.standing, receipt.attempt.rail) != ("paid", "channel"):
            wrong.append(f"{name}: receipt {receipt.attempt.id[:12]} was paid by it, and is not so")
        if receipt.attempt.payee.lower() != proof.payee.lower():
            wrong.append(f"{name}: receipt {receipt.attempt.id[:12]} is of another provider")
        if covered[receipt.attempt.id] != receipt.amount.units:
            wrong.append(f"{name}: receipt {receipt.attempt.id[:12]} and its payment differ")
    return wrong


def _is_signed(proof: ChannelProof, bundle: Bundle) -> bool:
    try:
        voucher = Voucher(
            bytes.fromhex(proof.channel), proof.cumulative, proof.tasks, bytes.fromhex(proof.root)
        )
        signer = recover(typed_digest(bundle.domain, voucher), bytes.fromhex(proof.signature))
    except (ValueError, OverflowError):
        return False
    return signer.lower() == bundle.payer.lower()


def _root(proof: ChannelProof, receipts: Sequence[Receipt]) -> str:
    """Return the root over the deliveries that receipts state, "" where one cannot be read."""
    try:
        leaves = [tree.leaf_of(receipt.delivery.struct_hash()) for receipt in receipts]
        if proof.base_root:
            leaves.insert(0, tree.leaf_of(bytes.fromhex(proof.base_root)))
    except (ValueError, OverflowError):
        return ""
    peaks: tree.Peaks = ()
    for number, leaf in enumerate(leaves):
        peaks = tree.added(peaks, number, leaf)
    return tree.root_of(peaks).hex()


def wrong_with_credit(
    provider: str, receipts: Iterable[Receipt], funded: int, said: Mapping[str, Any]
) -> list[str]:
    """Return where receipts for prepaid work and a provider's own figures differ.

    `funded`: the units that our books count as topped up; `said`: the provider's `topped_up`, and
    `debits` in units by its name for each answer.  What may have been done unheard may be debited.
    """
    debits = dict(said["debits"])
    wrong, unheard = [], 0
    for receipt in receipts:
        if receipt.standing == "uncertain":
            unheard += receipt.amount.units
            continue
        units, debited = receipt.amount.units, debits.pop(receipt.evidence.reference, 0)
        if units != debited:
            name = f"receipt {receipt.attempt.id[:12]}"
            wrong.append(f"{name} is over {units} units, and {provider} has debited {debited}")
    if sum(debits.values()) > unheard:
        wrong.append(f"{provider} has debited {sum(debits.values())} units for other answers")
    if said["topped_up"] != funded:
        paid = f"{said['topped_up']} units topped up"
        wrong.append(f"{provider} counts {paid}, and these books count {funded}")
    return wrong


async def verify_on_chain(bundle: Bundle, chain: ChainClient, network: Network) -> list[str]:
    """Return what a bundle says and the chain does not, read from the contract and token alone.

    For each channel: what was claimed is within the voucher and, where all of it was claimed, was
    claimed under its root; and the token moved each claim from the contract to the provider.
    Raises StoreUnavailable.
    """
    if (bundle.chain_id, bundle.channels_contract) != (network.chain_id, network.channels):
        return ["the bundle is of another network"]
    head = await chain.head()
    return [
        sentence
        for proof in bundle.channels
        for sentence in await _wrong_on_chain(proof, chain, network, head)
    ]


async def _wrong_on_chain(
    proof: ChannelProof, chain: ChainClient, network: Network, head: int
) -> list[str]:
    name = f"channel {proof.channel[:12]}"
    _, claimed = await deposit_of(chain, network, proof.channel)
    wanted: list[bytes | None] = [abi.CLAIMED, bytes.fromhex(proof.channel)]
    claims = await chain.logs(network.channels, wanted, 0, head)
    wrong = []
    if sum(abi.numbers(log.data)[0] for log in claims) != claimed:
        wrong.append(f"{name}: its claims do not add up to {claimed}")
    if claimed > proof.cumulative:
        wrong.append(f"{name}: {claimed} units were claimed and {proof.cumulative} promised")
    if claims and claimed == proof.cumulative and claims[-1].data[96:128].hex() != proof.root:
        wrong.append(f"{name}: it was claimed under another root")
    parties: Any = [abi.as_word(address) for address in (network.channels, proof.payee)]
    moved = await chain.logs(network.token, [abi.TRANSFER, *parties], 0, head)
    transfers = {(log.transaction, abi.numbers(log.data)[0]) for log in moved}
    if any((log.transaction, abi.numbers(log.data)[0]) not in transfers for log in claims):
        wrong.append(f"{name}: the token did not move what was claimed")
    return wrong

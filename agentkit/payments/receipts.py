"""Receipts that others can check: a bundle, and its verifier, which needs nothing but the bundle.

What proves what:

- An attempt's id is a digest over run, node, item, provider and terms.
- A provider's signature over (attempt, result, price, usage) proves what it delivered and asked.
- The payer's voucher proves what it promised on a channel in all.  Those of earlier versions name
  the Merkle root over the signed statements, too (`market.tree`).
- A seller's signed offer and receipt (x402) prove its terms, and that it was paid and served.
- The contract's own logs prove what moved.

The rest is the payer's own word; `proof_of` and `UNPROVEN` name it.
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
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.messages import Domain, Typed, Voucher, recover, typed_digest
from agentkit.market import tree
from agentkit.market.batch_settlement import SCHEME
from agentkit.market.chain import SETTLEMENT, ChainClient, Network
from agentkit.market.receipt import RECEIVED, Receipt
from agentkit.market.seams import Event
from agentkit.market.value import Value
from agentkit.money import Asset
from agentkit.payments import abi
from agentkit.payments.channels import contract
from agentkit.payments.legacy import deposit_of
from agentkit.payments.logged_claim import LoggedClaim
from agentkit.payments.statements import statement_problems

VERSION = 2
"""The version of the file that a bundle is saved in; a newer file is refused.

Version 2 has channels by x402 `batch-settlement`.
"""

MAX_BYTES = 256 << 20
"""The largest bundle that is read: some 100,000 receipts."""


class Paid(Value):
    """One attempt in a channel's tree, and by how many base units the voucher grew for it."""

    attempt: str
    units: int


class ChannelProof(Value):
    """What was promised on one channel: the newest voucher, and the payments in it, in order.

    `base` and `base_root`: the voucher that the provider showed to a payer who lost its books, as
    the start of the new ones; `matched`: the attempts that this voucher had paid, or a part of
    them.  `scheme` as in `journal.subjects.channels.Channel`: where it is "", the voucher names
    `tasks` and `root`.
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
    scheme: str = ""

    @property
    def voucher(self) -> Typed:
        """The newest voucher, as it is signed; raises ValueError for digits that are not hex."""
        channel = bytes.fromhex(self.channel)
        if self.scheme:
            return ChannelVoucher(channel, self.cumulative)
        root = bytes.fromhex(self.root)
        return Voucher(channel, cumulative=self.cumulative, tasks=self.tasks, receipts_root=root)


class Bundle(Value):
    """Receipts of a wallet, with what proves them."""

    version: int = VERSION
    chain_id: int
    channels_contract: str
    token: str
    payer: str
    receipts: tuple[Receipt, ...]
    channels: tuple[ChannelProof, ...]

    def domain(self, scheme: str) -> Domain:
        """Return the EIP-712 domain of vouchers of a scheme, "" for those of earlier versions."""
        if scheme:
            return Domain("x402 Batch Settlement", "1", self.chain_id, SETTLEMENT)
        return Domain("AgentChannels", "1", self.chain_id, self.channels_contract)

    @property
    def currency(self) -> Asset:
        """The asset that channels and escrows pay in; signatures are over units alone."""
        return Asset.named("USDC").bind(f"eip155:{self.chain_id}", f"erc20:{self.token}")

    def save(self, path: Path) -> None:
        """Write the bundle as JSON."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        # Always written, although it is the default: a later version has another default.
        document = {"version": self.version, **fields}
        write_text(path, json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle; raises ConfigError for anything else, and for a newer version."""
        try:
            document = strict_json.loads(read_bytes(path, MAX_BYTES))
            _refuse_newer(path, document)
            return cls.model_validate({"version": 1} | document)
        except WrongInput as unread:
            raise ConfigError(str(unread), hint="check the path") from unread
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} is not a valid bundle of receipts",
                hint="write one with `agentkit receipts --out FILE`",
            ) from error


def _refuse_newer(path: Path, document: Any) -> None:
    """Raise ConfigError for a bundle of a newer version, ValueError for what is not an object."""
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
    builders: dict[str, _ProofBuilder] = {}
    for event in wallet:
        if isinstance(event, e.ChannelOpened):
            empty = ChannelProof(channel=event.channel, payee=event.payee, scheme=event.scheme)
            builders[event.channel] = _ProofBuilder(empty)
        elif isinstance(event, e.VoucherSigned | e.VoucherFound | e.VoucherMatched):
            builders[event.channel].take(event)

    proofs = [builder.proof for builder in builders.values()]
    return Bundle(
        chain_id=network.chain_id,
        channels_contract=network.channels,
        token=network.token,
        payer=payer,
        receipts=tuple(receipts),
        channels=tuple(proof for proof in proofs if proof.cumulative),
    )


class _ProofBuilder:
    """Builds a channel's proof from the events of its vouchers, taken in order."""

    def __init__(self, proof: ChannelProof) -> None:
        self.proof = proof
        self._peaks: tree.Peaks = ()
        self._leaves = 0

    def take(self, event: e.VoucherSigned | e.VoucherFound | e.VoucherMatched) -> None:
        """Add what one event says to the proof."""
        if isinstance(event, e.VoucherMatched):
            part = Paid(attempt=event.attempt, units=event.amount.units)
            self._change(matched=(*self.proof.matched, part))
        elif isinstance(event, e.VoucherSigned):
            units = event.cumulative.units - self.proof.cumulative
            part = Paid(attempt=event.attempt, units=units)
            if event.leaf:
                self._add_leaf(bytes.fromhex(event.leaf))
            root = tree.root_of(self._peaks).hex()
            self._set_voucher(event, root=root, paid=(*self.proof.paid, part))
        elif event.cumulative.units > self.proof.cumulative:
            self._start_from(event)

    def _start_from(self, event: e.VoucherFound) -> None:
        """Start again from a voucher that was found: it covers all payments so far.

        The leaves under its root are lost, so the root itself is the first leaf of a new tree.
        """
        self._set_voucher(
            event,
            base=event.cumulative.units,
            base_root=event.root,
            root=event.root or tree.EMPTY.hex(),
            paid=(),
            matched=(*self.proof.matched, *self.proof.paid),
        )
        self._peaks = ()
        self._leaves = 0
        if event.root:
            self._add_leaf(tree.leaf_of(bytes.fromhex(event.root)))

    def _add_leaf(self, leaf: bytes) -> None:
        self._peaks = tree.added(self._peaks, self._leaves, leaf)
        self._leaves += 1

    def _set_voucher(self, event: e.VoucherSigned | e.VoucherFound, **others: object) -> None:
        """Take a newer voucher, and other fields of the proof that change with it."""
        self._change(
            cumulative=event.cumulative.units,
            tasks=event.tasks,
            signature=event.signature,
            **others,
        )

    def _change(self, **changes: object) -> None:
        self.proof = self.proof.model_copy(update=changes)


# -- checking ------------------------------------------------------------------------------------


def verify(bundle: Bundle) -> list[str]:
    """Return what is wrong with a bundle, a sentence for each problem.

    Nothing but the bundle is read, and nothing in it is trusted that is not signed.
    """
    # Ids are unique, so a receipt that stands twice would count twice in every sum.
    by_attempt = {receipt.attempt.id: receipt for receipt in bundle.receipts}
    problems: list[str] = []
    if len(by_attempt) < len(bundle.receipts):
        problems.append("a receipt stands in it twice")
    for receipt in bundle.receipts:
        problems += _receipt_problems(receipt, bundle)
        problems += _statement_problems(receipt, bundle)
    for proof in bundle.channels:
        problems += _channel_problems(proof, by_attempt, bundle)
    return problems


UNPROVEN = "when each receipt was made, what was asked, and the most that it could have cost"
"""What nobody signs, whatever the receipt."""

SIGNED_RAILS = ("channel", "escrow")
"""The rails whose providers sign what they deliver."""

Proof = Literal[
    "signature and voucher",
    "signature",
    "the seller's offer and receipt",
    "the seller's receipt",
    "the seller's offer",
    "the payer's word",
]
"""What stands behind a receipt: the provider's signature, the payer's voucher, the statements that
its seller signed as x402 has them (`payments.statements` says what those leave out), or nothing."""


def proof_of(receipt: Receipt, bundle: Bundle) -> Proof:
    """Return what proves a receipt of a bundle that `verify` found nothing wrong with."""
    if not _needs_signature(receipt):
        return _proof_by_seller(receipt)
    with_voucher = {paid.attempt for proof in bundle.channels for paid in proof.paid}
    return "signature and voucher" if receipt.attempt.id in with_voucher else "signature"


def _proof_by_seller(receipt: Receipt) -> Proof:
    """Return what a seller signed about a sale over x402; an offer is no word that it was paid."""
    statements = receipt.statements
    if statements.receipt:
        both = bool(statements.offer)
        return "the seller's offer and receipt" if both else "the seller's receipt"
    return "the seller's offer" if statements.offer else "the payer's word"


def _statement_problems(receipt: Receipt, bundle: Bundle) -> list[str]:
    """Return what is wrong with the statements of a receipt's seller."""
    network = f"eip155:{bundle.chain_id}"
    problems = statement_problems(receipt, bundle.payer, bundle.token, network)
    return [f"receipt {receipt.attempt.id[:12]}: {problem}" for problem in problems]


def _needs_signature(receipt: Receipt) -> bool:
    """Return whether a receipt's provider signs what it delivered."""
    return receipt.standing == "paid" and receipt.attempt.rail in SIGNED_RAILS


def _receipt_problems(receipt: Receipt, bundle: Bundle) -> list[str]:
    """Return the first problem of a receipt: with its ids, its standing or its signature."""
    name = f"receipt {receipt.attempt.id[:12]}"
    if not receipt.attempt.is_of_this_item:
        return [f"{name}: its attempt is not of that run, node and item"]
    if not receipt.attempt.is_of_these_terms:
        return [f"{name}: its attempt is not at that provider under those terms"]

    is_billed = receipt.standing == "billed elsewhere"
    is_elsewhere = receipt.attempt.rail == "elsewhere"
    if receipt.standing in RECEIVED and is_billed != is_elsewhere:
        return [f"{name} cannot be {receipt.standing} over {receipt.attempt.rail}"]
    if not _needs_signature(receipt):
        return []

    if receipt.attempt.payee.lower() not in _signers_of(receipt, bundle):
        return [f"{name} is not signed by {receipt.attempt.payee}"]
    if {receipt.amount.asset, receipt.attempt.at_most.asset} != {bundle.currency}:
        return [f"{name} is not in {bundle.currency.symbol} of this bundle's network"]
    if receipt.amount > receipt.attempt.at_most:
        return [f"{name} is above the attempt's at most"]
    return []


def _signers_of(receipt: Receipt, bundle: Bundle) -> set[str]:
    """Return the addresses that may have signed a receipt's delivery, in lower case.

    One for each domain in which a version signed deliveries; none if it cannot be read.
    """
    try:
        signature = bytes.fromhex(receipt.evidence.signature)
        digests = [typed_digest(bundle.domain(scheme), receipt.delivery) for scheme in ("", SCHEME)]
        return {recover(digest, signature).lower() for digest in digests}
    except (ValueError, OverflowError):
        return set()


def _channel_problems(
    proof: ChannelProof, by_attempt: Mapping[str, Receipt], bundle: Bundle
) -> list[str]:
    """Return what is wrong with a channel's voucher, and with the receipts that it pays."""
    name = f"channel {proof.channel[:12]}"
    problems: list[str] = []
    if not _is_signed_by_payer(proof, bundle):
        problems.append(f"{name}: its voucher is not the payer's")
    if proof.base + sum(paid.units for paid in proof.paid) != proof.cumulative:
        problems.append(f"{name}: its voucher is not the sum of what was paid")

    receipts = [by_attempt[paid.attempt] for paid in proof.paid if paid.attempt in by_attempt]
    missing = len(proof.paid) - len(receipts)
    if missing:  # without all of them the root cannot be computed
        return [*problems, f"{name}: {missing} of its receipts are missing"]
    if not proof.scheme and _root_over(proof, receipts) != proof.root:
        problems.append(f"{name}: its voucher's root is not over these receipts")
    return problems + _payment_problems(proof, receipts)


def _payment_problems(proof: ChannelProof, receipts: Sequence[Receipt]) -> list[str]:
    """Return the receipts of a channel that do not agree with what it paid for them."""
    paid_units: dict[str, int] = {}
    for part in (*proof.paid, *proof.matched):
        paid_units[part.attempt] = paid_units.get(part.attempt, 0) + part.units

    problems: list[str] = []
    for receipt in receipts:
        name = f"channel {proof.channel[:12]}: receipt {receipt.attempt.id[:12]}"
        if (receipt.standing, receipt.attempt.rail) != ("paid", "channel"):
            problems.append(f"{name} was paid by it, and does not say so")
        if receipt.attempt.payee.lower() != proof.payee.lower():
            problems.append(f"{name} is of another provider")
        if paid_units[receipt.attempt.id] != receipt.amount.units:
            problems.append(f"{name} and its payment differ")
    return problems


def _is_signed_by_payer(proof: ChannelProof, bundle: Bundle) -> bool:
    """Return whether a channel's voucher is signed by the bundle's payer."""
    try:
        digest = typed_digest(bundle.domain(proof.scheme), proof.voucher)
        signer = recover(digest, bytes.fromhex(proof.signature))
    except (ValueError, OverflowError):
        return False
    return signer.lower() == bundle.payer.lower()


def _root_over(proof: ChannelProof, receipts: Sequence[Receipt]) -> str:
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
    provider: str, receipts: Iterable[Receipt], funded: int, *, cents: int, unit: int, reserved: int
) -> list[str]:
    """Return where receipts for prepaid work and the balance that a provider shows differ.

    `funded`: the units that our books count as topped up.  `cents`: the balance, in cents of `unit`
    units, rounded down.  `reserved`: the most that unfinished attempts may have been debited.

    A provider shows no single debit.  So what can be found out is that more is gone than receipts
    explain: one that debits too much for one answer and too little for another is not noticed, nor
    is any such sum below a cent, nor one that others have paid in.  It may have debited uncertain
    attempts, whose answers we never got, up to what these could cost.
    """
    explained = sum(receipt.amount.units for receipt in receipts)
    least_left = funded - explained - reserved
    most_shown = (cents + 1) * unit - 1
    if most_shown >= least_left:
        return []
    return [
        f"{provider} shows a balance of {cents} cents, and these books explain no less than"
        f" {least_left} units: {least_left - most_shown} or more are gone"
    ]


async def verify_on_chain(bundle: Bundle, chain: ChainClient, network: Network) -> list[str]:
    """Return what a bundle says and the chain does not, read from the contract and token alone.

    For each channel: what was claimed is within the voucher.  For those of earlier versions: where
    all of it was claimed, it was claimed under the voucher's root, and the token moved each claim
    from the contract to the provider; a settlement by x402 moves the claims of many channels at
    once.  Raises StoreUnavailable.
    """
    if (bundle.chain_id, bundle.channels_contract) != (network.chain_id, network.channels):
        return ["the bundle is of another network"]
    head = await chain.head()
    problems: list[str] = []
    for proof in bundle.channels:
        if proof.scheme:
            problems += await _claim_problems(proof, chain=chain, head=head)
        else:
            problems += await _chain_problems(proof, chain=chain, network=network, head=head)
    return problems


async def _claim_problems(proof: ChannelProof, *, chain: ChainClient, head: int) -> list[str]:
    """Return what the proof of a channel of x402 says and the chain up to `head` does not."""
    name = f"channel {proof.channel[:12]}"
    channel = bytes.fromhex(proof.channel)
    claimed = (await contract.channel_on(chain, channel)).total_claimed
    logs = await chain.logs(SETTLEMENT, [contract.CLAIMED, channel], first=0, last=head)
    problems: list[str] = []
    if sum(abi.exactly(2, log.data)[0] for log in logs) != claimed:
        problems.append(f"{name}: its claims do not add up to {claimed}")
    if claimed > proof.cumulative:
        problems.append(f"{name}: {claimed} units were claimed and {proof.cumulative} promised")
    return problems


async def _chain_problems(
    proof: ChannelProof, *, chain: ChainClient, network: Network, head: int
) -> list[str]:
    """Return what a channel's proof says and the chain up to block `head` does not."""
    name = f"channel {proof.channel[:12]}"
    _, claimed = await deposit_of(chain, network, proof.channel)
    claim_topics: list[bytes | None] = [abi.CLAIMED, bytes.fromhex(proof.channel)]
    claim_logs = await chain.logs(network.channels, claim_topics, first=0, last=head)
    claims = [LoggedClaim.of(log.data) for log in claim_logs]

    problems: list[str] = []
    if sum(claim.amount for claim in claims) != claimed:
        problems.append(f"{name}: its claims do not add up to {claimed}")
    if claimed > proof.cumulative:
        problems.append(f"{name}: {claimed} units were claimed and {proof.cumulative} promised")
    if claims and claimed == proof.cumulative and claims[-1].root.hex() != proof.root:
        problems.append(f"{name}: it was claimed under another root")

    transfer_topics: list[bytes | None] = [
        abi.TRANSFER,
        abi.as_word(network.channels),
        abi.as_word(proof.payee),
    ]
    transfer_logs = await chain.logs(network.token, transfer_topics, first=0, last=head)
    transfers = {(log.transaction, abi.number(log.data)) for log in transfer_logs}
    claimed_in = {
        (log.transaction, claim.amount) for log, claim in zip(claim_logs, claims, strict=True)
    }
    if not claimed_in <= transfers:
        problems.append(f"{name}: the token did not move what was claimed")
    return problems

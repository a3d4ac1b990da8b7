"""A bundle of receipts proves what was delivered and promised, to somebody who trusts nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit.artifacts import Text
from agentkit.errors import ConfigError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Voucher
from agentkit.keys.signer import KeySigner
from agentkit.market import tree
from agentkit.market.attempt import Attempt, Evidence, Result, attempt_id, purchase_id
from agentkit.market.batch_settlement import SCHEME
from agentkit.market.receipt import Receipt, Standing, delivery_of
from agentkit.market.seams import Transaction
from agentkit.money import Asset, Money
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.receipts import Bundle, bundle_of, proof_of, verify, wrong_with_credit
from agentkit.payments.sender import Sender
from agentkit.testing.fakes import NETWORK, USDC

PAYER, SHOP, OTHER = (KeySigner(bytes([n]) * 32) for n in (1, 2, 3))
DOMAINS = {SCHEME: NETWORK.settlement_domain, "": NETWORK.channels_domain}
"""By scheme; "" for the channels of earlier versions."""

CHANNEL = "ab" * 32
USAGE = {"input": 7, "output": 3}


def attempt(n: int, rail: str = "channel") -> Attempt:
    purchase = purchase_id("r1", "n", n)
    return Attempt(
        id=attempt_id(purchase, 0, "native", "t"),
        purchase=purchase,
        n=0,
        run="r1",
        node="n",
        item=n,
        provider="native",
        rail=rail,
        payee=SHOP.address,
        terms="t",
        at_most=Money(1000, USDC),
        task="cd" * 32,
    )


def delivered(n: int, price: int, scheme: str) -> Result:
    output = Text.of(b"answer %d" % n)
    said = delivery_of(attempt(n).id, output.digest, Money(price, USDC), USAGE)
    signature = SHOP.sign_delivery(DOMAINS[scheme], said).hex()
    return Result((output,), USAGE, Money(price, USDC), Evidence(signer="", signature=signature))


class Wallet:
    """A payer's books with one open channel, as its runs would have written them."""

    def __init__(self, journal: Journal, scheme: str) -> None:
        chain: Any = None
        self.scheme = scheme
        sender = Sender(journal, chain, PAYER, NETWORK)
        self.journal, self.rail = journal, ChannelRail(journal, chain, PAYER, NETWORK, sender)
        self.receipts: list[Receipt] = []

    async def open(self) -> None:
        amount = Money(10_000, USDC)
        opened = e.ChannelOpened(
            channel=CHANNEL,
            provider="native",
            provider_node="",
            payer=PAYER.address,
            payee=SHOP.address,
            token=NETWORK.token,
            close_delay=3600,
            salt="00",
            scheme=self.scheme,
        )
        funded = e.ChannelFunded(channel=CHANNEL, amount=amount, deposited=amount)
        for event in (opened, funded):
            await self.write(event)

    async def write(self, event: Any) -> None:
        await self.journal.commit(lambda tx: tx.append(e.WALLET, event))

    async def pay(self, n: int, price: int) -> None:
        result = delivered(n, price, self.scheme)

        def work(tx: Transaction) -> Receipt:
            if self.scheme:
                return self.rail.settle(tx, attempt(n), result)[0]
            tx.append(e.WALLET, promised(tx, n, result))
            return Receipt.of(attempt(n), result, at=tx.now)

        self.receipts.append(await self.journal.commit(work))

    async def pay_again(self, n: int, price: int) -> None:
        """Pay what the voucher that was found has paid already."""
        if self.scheme:
            return await self.pay(n, price)
        amount = Money(price, USDC)
        matched = e.VoucherMatched(channel=CHANNEL, attempt=attempt(n).id, amount=amount)
        await self.write(matched)
        self.receipts.append(Receipt.of(attempt(n), delivered(n, price, ""), at=1.0))
        return None

    async def bundle(self) -> Bundle:
        wallet = await self.journal.history(e.WALLET)
        return bundle_of(NETWORK, PAYER.address, self.receipts, wallet)


def promised(tx: Transaction, n: int, result: Result) -> e.VoucherSigned:
    """Return the voucher that earlier versions signed: it names the tree over all deliveries."""
    channel = tx.get(r.Channel, CHANNEL)
    assert channel
    said = delivery_of(attempt(n).id, result.digest, result.price, USAGE)
    leaf = tree.leaf_of(said.struct_hash())
    units, tasks = channel.cumulative + result.price.units, channel.tasks + 1
    root = tree.root_of(tree.added(channel.peaks, channel.leaves, leaf))
    voucher = Voucher(bytes.fromhex(CHANNEL), units, tasks, root)
    return e.VoucherSigned(
        channel=CHANNEL,
        attempt=attempt(n).id,
        cumulative=Money(units, USDC),
        tasks=tasks,
        signature=PAYER.sign_voucher(DOMAINS[""], voucher).hex(),
        leaf=leaf.hex(),
    )


@pytest.fixture(params=[SCHEME, ""], ids=["x402", "earlier"])
async def wallet(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    journal = await Journal.open(tmp_path / "home", PAYER.address)
    wallet = Wallet(journal, request.param)
    await wallet.open()
    for n, price in enumerate((5, 7, 11, 13, 2)):
        await wallet.pay(n, price)
    yield wallet
    await journal.close()


async def test_what_was_paid_proves_itself_from_a_file(wallet: Wallet, tmp_path: Path) -> None:
    bundle = await wallet.bundle()
    bundle.save(tmp_path / "bundle.json")
    again = Bundle.load(tmp_path / "bundle.json")
    assert again == bundle
    assert verify(again) == []
    assert again.channels[0].cumulative == sum(one.amount.units for one in again.receipts) == 38


def money(units: int) -> str:
    """Money as JSON has it."""
    return json.loads(e.Held(run="", amount=Money(units, USDC)).model_dump_json())["amount"]


def changed(path: str, value: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for part in way:
            document = document[part]
        document[last] = value(document[last]) if callable(value) else value

    return change


def in_ether(document: Any) -> None:
    """Have a receipt say the same units of a currency with other decimals."""
    receipt = document["receipts"][1]
    for place, key in ((receipt, "amount"), (receipt["attempt"], "at_most")):
        units = Money.parse(place[key]).units
        ether = Asset.named("ETH").bind(USDC.network, USDC.token)
        place[key] = json.loads(e.Held(run="", amount=Money(units, ether)).model_dump_json())[
            "amount"
        ]


CHANGES = {
    "a currency": (in_ether, "is not in USDC"),
    "a token": (changed("token", OTHER.address), "is not in USDC"),
    "a price": (changed("receipts.1.amount", money(8)), "is not signed by"),
    "a result": (changed("receipts.1.result", "ee" * 32), "is not signed by"),
    "what was counted": (changed("receipts.1.usage.output", 4), "is not signed by"),
    "an attempt": (changed("receipts.1.attempt.id", "ee" * 32), "missing"),
    "a run": (changed("receipts.1.attempt.run", "r2"), "not of that run, node and item"),
    "a node": (changed("receipts.1.attempt.node", "m"), "not of that run, node and item"),
    "an item": (changed("receipts.1.attempt.item", 9), "not of that run, node and item"),
    "a provider": (changed("receipts.1.attempt.provider", "acme"), "not at that provider"),
    "a provider's node": (changed("receipts.1.attempt.provider_node", "x"), "not at that provider"),
    "the terms": (changed("receipts.1.attempt.terms", "u"), "not at that provider"),
    "a standing": (changed("receipts.1.standing", "uncertain"), "was paid by it"),
    "a bill elsewhere": (changed("receipts.1.standing", "billed elsewhere"), "cannot be"),
    "a rail": (changed("receipts.1.attempt.rail", "x402"), "was paid by it"),
    "a rail that signs": (changed("receipts.1.attempt.rail", "escrow"), "was paid by it"),
    "a payee": (changed("receipts.1.attempt.payee", OTHER.address), "is not signed by"),
    "a signature": (changed("receipts.1.evidence.signature", "00" * 65), "is not signed by"),
    "no signature": (changed("receipts.1.evidence.signature", "no hex"), "is not signed by"),
    "a price above its at most": (changed("receipts.1.attempt.at_most", money(6)), "at most"),
    "a missing receipt": (lambda d: d["receipts"].pop(2), "1 of its receipts are missing"),
    "a receipt twice": (lambda d: d["receipts"].append(d["receipts"][0]), "twice"),
    "the order": (lambda d: d["channels"][0]["paid"].reverse(), "root is not over these"),
    "a larger promise": (changed("channels.0.cumulative", 39), "not the payer's"),
    "a task more": (changed("channels.0.tasks", 6), "not the payer's"),
    "another root": (changed("channels.0.root", "ee" * 32), "not the payer's"),
    "another payer": (changed("payer", OTHER.address), "not the payer's"),
    "another chain": (changed("chain_id", 1), "is not signed by"),
    "another contract": (changed("channels_contract", OTHER.address), "is not signed by"),
    "another scheme": (
        lambda d: d["channels"][0].update(scheme="" if d["channels"][0].get("scheme") else SCHEME),
        "not the payer's",
    ),
    "another provider's channel": (changed("channels.0.payee", OTHER.address), "another provider"),
}


ROOTED = {"the order", "a task more", "another root", "another contract"}
"""What only vouchers of earlier versions name, by their tree and their contract."""


@pytest.mark.parametrize("what", CHANGES)
async def test_nothing_in_a_bundle_can_be_changed_unseen(
    wallet: Wallet, what: str, tmp_path: Path
) -> None:
    if wallet.scheme and what in ROOTED:
        pytest.skip("such a voucher names only what is promised in all")
    path = tmp_path / "bundle.json"
    (await wallet.bundle()).save(path)
    document = json.loads(path.read_text())
    change, complaint = CHANGES[what]
    change(document)
    path.write_text(json.dumps(document))
    wrong = verify(Bundle.load(path))
    assert any(complaint in sentence for sentence in wrong), wrong


async def test_what_stands_behind_a_receipt_is_said(wallet: Wallet) -> None:
    unsigned = wallet.receipts[0].model_copy(
        update={"attempt": attempt(9, rail="x402"), "evidence": Evidence()}
    )
    unvouched = wallet.receipts[1].model_copy(update={"attempt": attempt(8, rail="escrow")})
    bundle = await wallet.bundle()
    assert [proof_of(one, bundle) for one in bundle.receipts] == ["signature and voucher"] * 5
    assert proof_of(unsigned, bundle) == "the payer's word"
    assert proof_of(unvouched, bundle) == "signature"


async def test_a_bundle_after_a_restore_proves_what_came_before_by_the_voucher_found(
    wallet: Wallet,
) -> None:
    """The wallet lost its last two payments; the shop showed the voucher that made them."""
    late = await wallet.bundle()
    lost = late.channels[0]
    journal = await Journal.open(wallet.journal.home.parent / "restored", PAYER.address)
    restored = Wallet(journal, wallet.scheme)
    await restored.open()
    for n, price in enumerate((5, 7, 11)):
        await restored.pay(n, price)
    found = e.VoucherFound(
        channel=CHANNEL,
        cumulative=Money(lost.cumulative, USDC),
        tasks=lost.tasks,
        signature=lost.signature,
        root="" if wallet.scheme else lost.root,
        delivered=Money(lost.cumulative, USDC),
        attempts=(attempt(3).id, attempt(4).id),
    )
    await restored.write(found)
    await restored.pay_again(3, 13)
    await restored.pay_again(4, 2)
    await restored.pay(5, 100)
    bundle = await restored.bundle()
    assert verify(bundle) == []
    assert bundle.channels[0].cumulative == 138
    assert [paid.units for paid in bundle.channels[0].paid] == [100]
    for change, complaint in (
        ({"base": 37}, "not the sum of what was paid"),
        ({"base_root": "ee" * 32}, "" if wallet.scheme else "root is not over these"),
    ):
        forged = bundle.channels[0].model_copy(update=change)
        wrong = verify(bundle.model_copy(update={"channels": (forged,)}))
        assert any(complaint in sentence for sentence in wrong) or not complaint
    await journal.close()


async def test_what_is_no_bundle_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("", "[]", "{}", '{"version": 1}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ConfigError, match="not a valid bundle of receipts") as wrong:
            Bundle.load(path)
        assert wrong.value.hint.startswith("write one with `agentkit receipts --out")
    with pytest.raises(ConfigError, match="there is no file"):
        Bundle.load(tmp_path / "nothing.json")


# -- credit --------------------------------------------------------------------------------------


def prepaid(n: int, units: int, standing: Standing = "paid") -> Receipt:
    evidence = Evidence(reference="" if standing == "uncertain" else f"answer-{n}")
    amount = Money(units, USDC)
    return Receipt(
        attempt=attempt(n, "prepaid"), standing=standing, amount=amount, evidence=evidence, at=1.0
    )


@pytest.mark.parametrize(
    ("cents", "reserved", "gone"),
    [
        (10, 0, 0),  # the sub-cent part of what is left is never shown
        (9, 0, 0),
        (8, 0, 9_980),
        (8, 9_979, 1),
        (8, 9_980, 0),
        (9999, 0, 0),  # others have paid in
    ],
)
def test_receipts_for_credit_are_compared_with_the_balance_that_is_left(
    cents: int, reserved: int, gone: int
) -> None:
    """Of three purchases one was never heard of again, and may have been debited."""
    receipts = [prepaid(1, 5), prepaid(2, 7), prepaid(3, 9, "uncertain")]
    wrong = wrong_with_credit("far", receipts, 100_000, cents=cents, unit=10_000, reserved=reserved)
    assert len(wrong) == bool(gone)
    assert all(f"{gone} or more are gone" in sentence for sentence in wrong)

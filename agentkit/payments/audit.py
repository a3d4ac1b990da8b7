"""Compares receipts with everything that can contradict them: vouchers, the chain, providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentkit.errors import ProviderError
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.attempt import Message
from agentkit.market.chain import ChainClient, Network
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Provider
from agentkit.payments.credit import units_per_cent
from agentkit.payments.receipts import Bundle, verify, verify_on_chain, wrong_with_credit


async def contradictions(
    bundle: Bundle,
    *,
    journal: Journal,
    chain: ChainClient,
    network: Network,
    providers: Mapping[str, Provider],
) -> list[str]:
    """Return where receipts, vouchers, the chain and providers disagree, a sentence for each.

    A provider of prepaid credit is asked for its balance.  One that does not answer is a sentence,
    too.
    """
    sentences = verify(bundle) + await verify_on_chain(bundle, chain, network)

    by_provider: dict[str, list[Receipt]] = {}
    for receipt in bundle.receipts:
        if receipt.attempt.rail == "prepaid":
            by_provider.setdefault(receipt.attempt.provider, []).append(receipt)
    for name, receipts in sorted(by_provider.items()):
        sentences += await _credit_contradictions(
            name, receipts, journal=journal, network=network, providers=providers
        )
    return sentences


async def _credit_contradictions(
    name: str,
    receipts: Sequence[Receipt],
    *,
    journal: Journal,
    network: Network,
    providers: Mapping[str, Provider],
) -> list[str]:
    """Compare the receipts of one provider with the balance that it shows."""
    payees = {receipt.attempt.payee for receipt in receipts}
    accounts = await journal.commit(lambda tx: tx.every(r.Account, "prepaid|"))
    own_accounts = [account for account in accounts if account.account in payees]

    provider = providers.get(name)
    if provider is None:
        return [f"{name} is not among the configured providers, so its figures are not known"]
    try:
        answer = await provider.carry(Message(rail="prepaid", provider=name, verb="balance"))
    except ProviderError as error:
        return [f"{name} does not show its balance: {error}"]
    return wrong_with_credit(
        name,
        receipts,
        sum(account.funded.units for account in own_accounts),
        cents=int(answer.body["cents"]),
        unit=units_per_cent(network.currency),
        reserved=sum(account.reserved.units for account in own_accounts),
    )

"""Which lanes are channels on which network."""

from __future__ import annotations

from agentkit.journal import records as r
from agentkit.market.batch_settlement import Config
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction


def lanes_on(tx: Transaction, network: Network, payee: str = "") -> list[r.Lane]:
    """Return the lanes on a network, in the order of their numbers; with one payee if named."""
    of_payee = [lane for lane in tx.every(r.Lane) if not payee or lane.payee == payee]
    lanes = [lane for lane in of_payee if is_on(lane, network)]
    return sorted(lanes, key=lambda lane: lane.lane)


def is_on(lane: r.Lane, network: Network) -> bool:
    """Return whether a lane is a channel on a network.

    A channel's id is a hash over its terms and its chain.  So every lane tells its network by
    itself, whatever the wallet's home network was when it was opened.
    """
    terms = Config.model_validate(lane.config).terms()
    return terms.id(network.settlement_domain).hex() == lane.channel

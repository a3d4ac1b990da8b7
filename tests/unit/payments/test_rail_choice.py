"""Which way of paying is taken, and that the plan says why."""

from dataclasses import replace
from typing import Any

import pytest

from agentkit.market.offer import Offer
from agentkit.money import Money
from agentkit.payments.rail_choice import History, RailPlanner
from agentkit.testing.fakes import USDC

BOTH = {"channel": "on_delivery", "escrow": "on_delivery"}
NEW = History(delivered={}, refused={}, channels=())
PLANNER = RailPlanner(
    rails=("channel", "escrow", "prepaid"),
    escrow_from=Money.parse("1 USDC").bind(USDC),
    escrow_after=600,
    arbiter_above=Money.parse("10 USDC").bind(USDC),
)


def offer(at_most: str, eta: float = 5, rails: Any = BOTH, **fields: Any) -> Offer:
    money = Money.parse(f"{at_most} USDC").bind(USDC)
    return Offer(
        provider="native",
        provider_node="n",
        node="ask",
        on="x",
        price=money,
        at_most=money,
        eta=eta,
        expires=0,
        rail="channel",
        rails=rails,
        pays="on_delivery",
        payee="0xP",
        rates={},
        **fields,
    )


def chosen(given: Offer, history: History = NEW, planner: RailPlanner = PLANNER) -> tuple[str, str]:
    taken = planner.choosing(history)(given)
    return taken.rail, taken.paid_because


@pytest.mark.parametrize(
    ("given", "rail", "why"),
    [
        (offer("0.5"), "channel", "opens a channel"),
        (offer("0.999999"), "channel", "opens a channel"),
        (offer("1"), "escrow", "from 1.00 USDC on"),
        (offer("0.1", eta=600), "escrow", "lasts longer than 10m"),
        (offer("0.1", eta=599), "channel", "opens a channel"),
        (offer("10"), "escrow", "from 1.00 USDC on"),
        (offer("10.000001"), "channel", "opens a channel"),  # nobody could refuse junk
        (offer("5", rails={"channel": "on_delivery"}), "channel", "the only rail"),
        (offer("5", rails={"escrow": "on_delivery", "dust": "billed"}), "escrow", "the only rail"),
        (offer("5", rails={}), "channel", ""),
        (offer("5", rails={"dust": "billed"}), "channel", ""),
    ],
)
def test_price_and_duration_choose(given: Offer, rail: str, why: str) -> None:
    taken, because = chosen(given)
    assert taken == rail
    assert why in because
    assert because or not why


def test_history_chooses() -> None:
    proven = replace(NEW, delivered={"native/n": 20})
    assert chosen(offer("5"), proven)[0] == "channel"
    rail, why = chosen(offer("10"), proven)
    assert (rail, "from 10.00 USDC on" in why) == ("escrow", True)
    assert chosen(offer("5"), replace(proven, delivered={"native/n": 19}))[0] == "escrow"
    assert chosen(offer("5"), replace(proven, refused={"native/n": 1}))[0] == "escrow"
    assert chosen(offer("0.1"), replace(NEW, channels=("0xP",))) == ("channel", "a channel is open")


def test_with_an_arbiter_dear_tasks_are_locked_too() -> None:
    arbitrated = replace(PLANNER, arbitrated=True)
    assert chosen(offer("500"), planner=arbitrated)[0] == "escrow"


def test_terms_say_how_an_offer_is_paid_and_not_why() -> None:
    """A plan made for one way of paying is not kept by another."""
    by = offer("5").paid_by("escrow", "because")
    assert by.terms != offer("5").terms
    assert by.terms == offer("5").paid_by("escrow", "for another reason").terms

"""Everything at once, at random: at the end all of it is there, and each item was paid for once.

`AGENTKIT_STORMS=200` for a longer look; a storm that fails is named by its number.
"""

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from support.arweave_wallet import arweave_wallet
from support.gateway_fixtures import Mind, Weave, layer1, minds, weave_at

from agentkit.embedded.gateway import Failure
from agentkit.errors import StateError
from agentkit.memory.arweave.ans104 import split_bundle
from agentkit.memory.arweave.jwk import JwkWallet

RICH = 10**15
STORMS = int(os.environ.get("AGENTKIT_STORMS", "3"))
PATHS = ("/v1/tx", "/tx", "/chunk", "/graphql", "/raw", "/info", "/price", "/tx_anchor")


@pytest.fixture
def wallet() -> JwkWallet:
    return arweave_wallet()


def weather(chance: Random, *, short: bool) -> dict[str, object]:
    """Return what goes wrong next; a gateway hides things only while no anchor can expire."""
    failures = tuple(
        Failure(
            path=chance.choice(PATHS),
            status=chance.choice((0, 402, 429, 500, 503)),
            times=chance.randint(1, 3),
            done=chance.random() < 0.5,
            retry_after="0",
        )
        for _ in range(chance.randint(0, 3))
    )
    mined = {"drop_rate": chance.choice((0.0, 0.0, 0.5)), "hold": chance.choice((set(), {"*"}))}
    hidden = {"hide": {"*"} if short and chance.random() < 0.3 else set()}
    return {"failures": failures, "price_times": chance.choice((1, 1, 3)), **mined, **hidden}


async def blow(chance: Random, weave: Weave, mind: Mind, *, short: bool) -> None:
    """Let some time go by in bad weather."""
    weave.fault(**weather(chance, short=short))
    await mind.note(chance.randint(0, 3), size=chance.choice((10, 60_000)))
    for step in (mind.memory.checkpoint, mind.memory.confirm):
        try:
            await step()
        except StateError:
            continue
    weave.mine(chance.choice((1, 1, 2) if short else (1, 1, 3, 12, 55)))
    if chance.random() < 0.3:
        weave.gateway.reorg(chance.randint(1, 8), keep=chance.random() < 0.5)
    for item in await mind.items():
        if chance.random() < 0.15 and item.state != "read back":
            weave.gateway.lose(item.carrier or item.item)


@pytest.mark.parametrize("kind", ["direct", "layer 1"])
@pytest.mark.parametrize("storm", range(STORMS))
async def test_after_a_storm_all_is_there_and_paid_once(
    tmp_path: Path, wallet: JwkWallet, storm: int, kind: str
) -> None:
    chance = Random(storm)  # the same storm each time
    path = layer1(wallet) if kind == "layer 1" else None
    async with (
        weave_at(tmp_path / "weave") as weave,
        minds(tmp_path / "home", weave.url, path=path) as mind,
    ):
        weave.gateway.mint(wallet.address, RICH)
        for _ in range(12):
            await blow(chance, weave, mind, short=storm % 2 == 0)
        await mind.note()
        weave.fault()
        for _ in range(8):  # and the sun comes out
            await mind.memory.confirm()
            await mind.memory.checkpoint()
            weave.mine(18)
        await mind.memory.confirm()
        items = await mind.items()
        assert Counter(item.state for item in items) == {"read back": len(items)}
        assert sorted(weave.listed()) == sorted(item.item for item in items)
        assert (await mind.memory.backup_status()).unsealed == 0
        assert weave.gateway.bench.reached.total() > 5
        carriers = weave.listed(wallet.address)
        inside = Counter(
            name for tx in carriers for name, _ in split_bundle(weave.gateway.data(tx) or b"")
        )
        if kind == "layer 1":
            assert inside == {item.item: 1 for item in items}
        known = await mind.journal.commit(
            lambda tx: [tx.outbox.get_carrier(name) for name in carriers]
        )
        paid = RICH - weave.gateway.balance(wallet.address)
        assert paid == sum(carrier.fee for carrier in known if carrier)

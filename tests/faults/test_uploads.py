"""What goes wrong between the outbox and the weave: nothing is lost, nothing is paid twice.

Every fault is seen to be reached, and what the user reads is what is compared.
"""

import asyncio
import base64
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.arweave_wallet import arweave_key, arweave_wallet
from support.gateway_fixtures import ME, SIGNER, Mind, Weave, layer1, minds, weave_at

from agentkit.embedded.gateway import Failure
from agentkit.errors import StoreUnavailable
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.memory.arweave.ans104 import make_bundle, make_item, parse_item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.layer1 import make_transaction
from agentkit.memory.arweave.merkle import MAX_CHUNK
from agentkit.memory.arweave.unbundling import bundle_tags, find_bundled_items
from agentkit.memory.uploads.bundler import UploadLimits
from agentkit.memory.uploads.confirmation import Waits
from agentkit.money import Money

RICH = 10**15
FEE = 212_037_686
DEEP = r"everything is on Arweave, in 1 items, 1 of them not yet 18 blocks deep \(oldest \d+ s\)"


@pytest.fixture
async def weave(tmp_path: Path) -> AsyncIterator[Weave]:
    async with weave_at(tmp_path / "weave") as made:
        yield made


@pytest.fixture
def jwk() -> dict[str, str]:
    return arweave_key()


@pytest.fixture
def poor_wallet() -> JwkWallet:
    return arweave_wallet()


@pytest.fixture
def wallet(poor_wallet: JwkWallet, weave: Weave) -> JwkWallet:
    weave.gateway.mint(poor_wallet.address, RICH)
    return poor_wallet


@pytest.fixture
async def mind(tmp_path: Path, weave: Weave) -> AsyncIterator[Mind]:
    async with minds(tmp_path / "home", weave.url) as made:
        yield made


@pytest.fixture
async def rich(tmp_path: Path, weave: Weave, wallet: JwkWallet) -> AsyncIterator[Mind]:
    """A mind that uploads on layer 1."""
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet)) as made:
        yield made


async def paid(weave: Weave, wallet: JwkWallet) -> int:
    return RICH - weave.gateway.balance(wallet.address)


# -- gateways that will not ----------------------------------------------------------------------

REFUSALS = {
    "500": Failure(path="/v1/tx", status=500, times=9),
    "503": Failure(path="/v1/tx", status=503, times=9),
    "429": Failure(path="/v1/tx", status=429, times=9, retry_after="0"),
    "402": Failure(path="/v1/tx", status=402, times=9),
    "reset": Failure(path="/v1/tx", status=0, times=9),
    "silence": Failure(path="/v1/tx", status=503, times=9, delay=2.0),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_gateway_that_will_not_is_worked_around(
    tmp_path: Path, weave: Weave, mind: Mind, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    weave.fault(failures=(REFUSALS[refusal],))
    if refusal == "silence":
        mind.gateways._endpoints[0]._timeout = 0.5
    await mind.note(3)
    said = "did not answer in time" if refusal == "silence" else ""
    said = said or ("cannot be reached" if refusal == "reset" else f"answered {refusal}")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=said):
            await mind.memory.checkpoint()
    await mind.note()  # it keeps working from its journal
    assert await mind.memory.latest("t")
    steps, trouble = await mind.said()
    assert re.fullmatch(r"4 steps not yet on Arweave, oldest \d+ s; safe on this machine", steps)
    assert trouble.startswith(f"Arweave upload paused: {weave.url} {said}")
    assert trouble.endswith("; state is safe locally only")
    warned = [record for record in caplog.records if "paused" in record.message]
    assert len(warned) == 1
    assert weave.reached("fail /v1/tx") == 3
    async with (
        weave_at(tmp_path / "other") as other,
        minds(tmp_path / "home", weave.url, other.url) as two,
    ):
        await two.memory.checkpoint()
        assert len(other.listed()) == 2
        other.mine()
        assert (await two.said())[0].startswith("everything is on Arweave, in 2 items")
        assert (await two.memory.backup_status()).trouble == ""


async def test_the_answer_is_lost_and_the_item_is_there_once(weave: Weave, mind: Mind) -> None:
    weave.fault(failures=(Failure(path="/v1/tx", status=0, done=True),))
    await mind.note()
    with pytest.raises(StoreUnavailable):
        await mind.memory.checkpoint()
    (item,) = await mind.items()
    assert (item.state, weave.listed()) == ("sealed", [item.item])
    assert weave.reached("fail /v1/tx") == 1
    await mind.memory.checkpoint()
    assert [(i.item, i.state, i.raw) for i in await mind.items()] == [
        (item.item, "accepted", item.raw)
    ]
    assert weave.listed() == [item.item]
    assert "re-posted" not in " ".join(await mind.said())


async def test_background_retries_warn_once_and_say_when_they_go_on(
    weave: Weave, mind: Mind, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.memory.uploads.uploader.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("agentkit.memory.uploads.uploader.LONGEST_PAUSE", 0.02)
    weave.fault(failures=(Failure(path="/v1/tx", times=4),))
    await mind.note()
    mind.memory.wake()
    mind.memory.start()
    await mind.until("accepted")
    await mind.memory.close()
    assert weave.reached("fail /v1/tx") == 4
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.message.split(":")[0] for record in warned] == [
        "Arweave upload paused",
        "Arweave uploads go on",
    ]


async def test_layer_1_chunks_that_fail_are_sent_until_all_are_there(
    weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    weave.fault(failures=(Failure(path="/chunk", status=500, times=2),))
    for _ in range(8):
        await rich.memory.note("random", base64.b64encode(os.urandom(45_000)).decode())
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await rich.memory.checkpoint()
    await rich.memory.checkpoint()
    (carrier,) = await rich.journal.commit(lambda tx: tx.outbox.carriers_in("posted"))
    weave.mine()
    assert len(weave.gateway.data(carrier.tx) or b"") > MAX_CHUNK
    assert weave.reached("fail /chunk") == 2
    assert await paid(weave, wallet) == carrier.fee


# -- killed in between ---------------------------------------------------------------------------

KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from support.gateway_fixtures import layer1, minds
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.uploads.outbox import Outbox

def killed(self, *args, **more):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    home, url, jwk, where = Path(sys.argv[1]), *sys.argv[2:]
    path = layer1(JwkWallet.load(Path(jwk))) if jwk else None
    async with minds(home, url, path=path) as mind:
        await mind.note(3)
        if where == "sign and post":
            Gateways.post_item = Gateways.post_transaction = killed
        else:
            Outbox.accepted = killed
        await mind.memory.checkpoint()

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["sign and post", "post and mark"])
@pytest.mark.parametrize("kind", ["direct", "layer 1"])
async def test_a_kill_between_loses_nothing_and_pays_once(
    tmp_path: Path, weave: Weave, wallet: JwkWallet, jwk: dict[str, str], where: str, kind: str
) -> None:
    (tmp_path / "jwk.json").write_text(json.dumps(jwk))
    script = KILLED.format(tests=str(Path(__file__).parents[1]))
    key = str(tmp_path / "jwk.json") if kind == "layer 1" else ""
    command = [sys.executable, "-c", script, str(tmp_path / "home"), weave.url, key, where]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == -9, said.decode()
    path = layer1(wallet) if kind == "layer 1" else None
    async with minds(tmp_path / "home", weave.url, path=path) as mind:
        assert [note.text for note in await mind.memory.notes("t")] == [
            f"{n} " + "x" * 10 for n in (1, 2, 3)
        ]
        before = await mind.items()
        assert [item.state for item in before] == ["sealed"]
        await mind.memory.checkpoint()
        weave.mine()
        assert [item.item for item in await mind.items()] == [item.item for item in before]
        assert weave.listed() == [item.item for item in before]
        assert await mind.states() == ["accepted"]
        assert await paid(weave, wallet) == (FEE if kind == "layer 1" else 0)
        assert len(weave.listed(wallet.address)) == (1 if kind == "layer 1" else 0)


async def test_two_processes_of_a_wallet_pay_once_for_what_both_would_send(
    tmp_path: Path, weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet)) as other:
        await rich.note(5)
        await asyncio.gather(rich.memory.checkpoint(), other.memory.checkpoint())
        weave.mine()
        assert await paid(weave, wallet) == FEE
        assert len(weave.listed(wallet.address)) == 1


# -- money ---------------------------------------------------------------------------------------


async def test_a_wallet_without_ar_pauses_uploads_and_nothing_else(
    tmp_path: Path, weave: Weave, poor_wallet: JwkWallet
) -> None:
    wallet = poor_wallet
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet)) as poor:
        await poor.note(12)
        with pytest.raises(StoreUnavailable) as refused:
            await poor.memory.checkpoint()
        assert wallet.address in refused.value.hint
        steps, trouble = await poor.said()
        assert re.fullmatch(r"12 steps not yet on Arweave, oldest \d+ s; .*", steps)
        assert trouble == (
            "Arweave upload paused: needs 0.000212 AR, wallet has 0; state is safe locally only"
        )
        assert await poor.journal.commit(lambda tx: tx.outbox.carriers_in("signed", "posted")) == []
        weave.gateway.mint(wallet.address, FEE)
        await poor.memory.checkpoint()
        weave.mine()
        assert weave.gateway.balance(wallet.address) == 0
        assert (await poor.said())[0].startswith("everything is on Arweave, in 1 items")


async def test_a_price_spike_is_waited_out(tmp_path: Path, weave: Weave, wallet: JwkWallet) -> None:
    cap = UploadLimits(per_upload=Money.parse("0.001 AR"))
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet, cap)) as mind:
        weave.fault(price_times=50)
        await mind.note()
        with pytest.raises(StoreUnavailable) as refused:
            await mind.memory.checkpoint()
        assert refused.value.hint == "raise memory.per_upload, or wait for a lower price"
        assert (await mind.said())[1] == (
            "Arweave upload paused: needs 0.010602 AR, above memory.per_upload (0.001 AR);"
            " state is safe locally only"
        )
        assert await paid(weave, wallet) == 0
        weave.fault()
        await mind.memory.checkpoint()
        assert await paid(weave, wallet) == FEE


async def test_all_uploads_together_stay_below_the_total(
    tmp_path: Path, weave: Weave, wallet: JwkWallet
) -> None:
    cap = UploadLimits(total=Money(FEE, Money.parse("1 AR").asset))
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet, cap)) as mind:
        await mind.note()
        await mind.memory.checkpoint()
        fee = await mind.memory.fee()
        assert fee is not None
        assert (fee.price.units, fee.at_most.units) == (FEE, FEE)
        await mind.note()
        with pytest.raises(StoreUnavailable, match=r"of memory.total .* are spent"):
            await mind.memory.checkpoint()
        assert await paid(weave, wallet) == FEE


async def test_many_items_share_one_fee_and_wait_for_one_another(
    tmp_path: Path, weave: Weave, wallet: JwkWallet
) -> None:
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet)) as mind:
        for _ in range(3):
            await mind.note(2)
            await mind.memory._seal()
            await mind.memory._send_if_due()
        assert await mind.states() == ["sealed"] * 3
        assert weave.listed(wallet.address) == []
        mind.path.rest = 0.0  # ten minutes later
        mind.memory.start()
        await mind.until("accepted")
        await mind.memory.close()
        weave.mine()
        assert len(weave.listed()) == 3
        assert await paid(weave, wallet) == FEE


async def test_who_only_looks_pays_for_no_upload(
    tmp_path: Path, weave: Weave, wallet: JwkWallet
) -> None:
    async with minds(tmp_path / "home", weave.url, path=layer1(wallet)) as writer:
        await writer.note()
        async with minds(tmp_path / "home", weave.url, path=layer1(wallet)) as looker:
            assert (await looker.memory.backup_status()).unsealed == 1
        assert await writer.states() == []
    weave.mine()
    assert await paid(weave, wallet) == FEE
    assert len(weave.listed()) == 1


async def test_what_an_upload_writes_down_is_no_reason_for_the_next(
    weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    await rich.note()
    for _ in range(3):
        standing = await rich.memory.checkpoint()
        weave.mine()
    assert (standing.unsealed, len(await rich.items())) == (0, 1)
    assert await paid(weave, wallet) == FEE
    rows = await rich.journal.rows(e.WALLET)
    assert [row.kind for row in rows] == ["NoteAdded", "UploadSigned"]
    await rich.note()
    await rich.memory.checkpoint()
    last = (await rich.items())[-1]
    assert (last.first, last.last) == (2, 3)  # and it is sealed with what comes after


# -- what the weave forgets ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["direct", "layer 1"])
async def test_the_way_of_an_item_from_sealed_to_read_back(
    tmp_path: Path, weave: Weave, wallet: JwkWallet, kind: str
) -> None:
    path = layer1(wallet) if kind == "layer 1" else None
    async with minds(tmp_path / "home", weave.url, path=path) as mind:
        await mind.note(3)
        assert (await mind.memory.backup_status()).segments == {}
        await mind.memory.checkpoint()
        seen = await mind.states()
        for blocks in (1, 16, 1, 1):
            weave.mine(blocks)
            await mind.memory.confirm()
            seen += await mind.states()
        assert seen == ["accepted", "mined", "mined", "read back", "read back"]
        assert await mind.said() == ["everything is on Arweave, in 1 items"]


async def test_what_does_not_lie_deep_is_said(weave: Weave, mind: Mind) -> None:
    await mind.note()
    await mind.memory.checkpoint()
    weave.mine()
    await mind.memory.confirm()
    (said,) = await mind.said()
    assert re.fullmatch(DEEP, said)
    standing = (await mind.memory.backup_status()).document()
    assert standing["segments"] == {
        **dict.fromkeys(("sealed", "lost", "accepted", "stable", "read back"), 0),
        "mined": 1,
    }
    assert standing["window_s"] is not None
    assert standing["oldest_s"] is None


@pytest.mark.parametrize("kind", ["direct", "layer 1"])
async def test_a_reorg_takes_it_and_it_is_posted_again(
    tmp_path: Path, weave: Weave, wallet: JwkWallet, kind: str
) -> None:
    path = layer1(wallet) if kind == "layer 1" else None
    async with minds(tmp_path / "home", weave.url, path=path) as mind:
        weave.mine(10)
        await mind.note(3)
        await mind.memory.checkpoint()
        weave.mine(5)
        await mind.memory.confirm()
        assert await mind.states() == ["mined"]
        weave.gateway.reorg(5)
        assert (weave.reached("reorg"), weave.listed()) == (1, [])
        await mind.memory.confirm()
        assert await mind.states() == ["lost"]
        steps, *_ = await mind.said()
        assert steps.startswith("3 steps not yet on Arweave")
        await mind.memory.checkpoint()
        weave.mine(18)
        await mind.memory.confirm()
        assert await mind.said() == ["everything is on Arweave, in 1 items", "re-posted 1 times"]
        assert await mind.states() == ["read back"]
        assert weave.listed() == [item.item for item in await mind.items()]
        assert await paid(weave, wallet) == (FEE if kind == "layer 1" else 0)


async def test_a_reorg_that_puts_it_back_into_the_mempool_is_waited_for(
    weave: Weave, mind: Mind
) -> None:
    await mind.note()
    await mind.memory.checkpoint()
    weave.mine(2)
    await mind.memory.confirm()
    weave.gateway.reorg(2, keep=True)
    await mind.memory.confirm()
    assert await mind.states() == ["accepted"]
    weave.mine()
    await mind.memory.confirm()
    assert (await mind.states(), (await mind.items())[0].posts) == (["mined"], 1)


async def test_a_dropped_transaction_is_posted_as_it_is_while_its_anchor_lasts(
    weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    weave.fault(drop={"*"})
    await rich.note()
    await rich.memory.checkpoint()
    weave.mine()
    assert (weave.reached("drop"), await paid(weave, wallet)) == (1, 0)
    weave.fault()
    await rich.memory.confirm()
    assert await rich.states() == ["lost"]
    await rich.memory.checkpoint()
    weave.mine()
    (carrier,) = await rich.journal.commit(
        lambda tx: tx.outbox.carriers_in("signed", "posted", "dropped")
    )
    assert weave.listed(wallet.address) == [carrier.tx]
    assert await paid(weave, wallet) == FEE


async def test_a_transaction_whose_anchor_expired_is_wrapped_anew(
    weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    weave.fault(hold={"*"})
    await rich.note()
    await rich.memory.checkpoint()
    weave.mine(60)
    assert weave.reached("hold") > 40
    weave.fault()
    (item,) = await rich.items()
    await rich.memory.confirm()
    await rich.memory.checkpoint()
    weave.mine(18)
    await rich.memory.confirm()
    (again,) = await rich.items()
    assert (again.item, again.raw, again.state) == (item.item, item.raw, "read back")
    assert again.carrier != item.carrier
    assert weave.listed(wallet.address) == [again.carrier]
    assert await paid(weave, wallet) == FEE
    assert (await rich.said())[1:] == ["re-posted 1 times"]
    (total,) = await rich.journal.commit(lambda tx: tx.every(r.Total))
    assert (total.scope, total.amount.units) == ("uploads", FEE)


async def test_already_there_is_as_good_as_taken(
    weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    already = "Transaction is already on the weave."
    weave.fault(
        failures=(
            Failure(path="/tx", method="POST", status=0, done=True),
            Failure(path="/tx", method="POST", status=400, text=already),
            Failure(path="/tx", method="POST", status=400, text="Transaction verification failed"),
        )
    )
    await rich.note()
    with pytest.raises(StoreUnavailable):
        await rich.memory.checkpoint()
    await rich.memory.checkpoint()
    assert await rich.states() == ["accepted"]
    await rich.note()
    with pytest.raises(StoreUnavailable, match="answered 400 'Transaction verification failed'"):
        await rich.memory.checkpoint()
    assert weave.reached("fail /tx") == 3
    assert await paid(weave, wallet) == FEE


async def test_an_old_transaction_that_was_mined_after_all_is_not_paid_for_again(
    weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    weave.fault(failures=(Failure(path="/tx", method="POST", status=0, done=True),))
    await rich.note()
    with pytest.raises(StoreUnavailable):
        await rich.memory.checkpoint()
    weave.mine(60)  # it is there, and nobody told us
    await rich.memory.checkpoint()
    await rich.memory.confirm()
    assert await rich.states() == ["read back"]
    assert weave.reached("fail /tx") == 1
    assert await paid(weave, wallet) == FEE


async def test_a_gateway_that_does_not_answer_is_no_proof_of_a_loss(
    tmp_path: Path, weave: Weave, wallet: JwkWallet
) -> None:
    async with weave_at(tmp_path / "empty") as empty:
        urls = (weave.url, empty.url)
        async with minds(tmp_path / "home", *urls, path=layer1(wallet)) as mind:
            await mind.note()
            await mind.memory.checkpoint()
            weave.mine()
            weave.fault(failures=(Failure(path="/graphql", times=2),))
            await mind.memory.confirm()
            assert weave.reached("fail /graphql") == 1
            assert await mind.states() == ["accepted"]
            weave.fault()
            await mind.memory.confirm()
            assert await mind.states() == ["mined"]
            assert await paid(weave, wallet) == FEE


@pytest.mark.parametrize("kind", ["direct", "layer 1"])
async def test_a_header_without_data_is_seeded_again(
    tmp_path: Path, weave: Weave, wallet: JwkWallet, kind: str
) -> None:
    path = layer1(wallet) if kind == "layer 1" else None
    async with minds(tmp_path / "home", weave.url, path=path) as mind:
        await mind.note(2)
        await mind.memory.checkpoint()
        weave.mine()
        (item,) = await mind.items()
        weave.gateway.lose(item.carrier or item.item)
        weave.fault(failures=(Failure(path="/chunk"), Failure(path="/v1/tx")))
        with pytest.raises(StoreUnavailable):  # not even the seeding works
            await mind.memory.confirm()
        assert "1 of them: mined but not readable yet" in await mind.said()
        assert weave.reached("lose") == 1
        await mind.memory.confirm()  # seeds
        await mind.memory.confirm()  # and looks
        (said,) = await mind.said()
        assert re.fullmatch(DEEP, said)
        assert await paid(weave, wallet) == (FEE if kind == "layer 1" else 0)


async def test_data_that_is_not_ours_is_not_taken_for_stable(weave: Weave, mind: Mind) -> None:
    await mind.note()
    await mind.memory.checkpoint()
    (item,) = await mind.items()
    weave.mine(18)
    weave.fault(flip={item.item})
    await mind.memory.confirm()
    assert await mind.states() == ["stable"]
    assert "1 of them: mined but not readable yet" in await mind.said()
    assert weave.reached("flip") > 0
    weave.fault()
    await mind.memory.confirm()
    assert await mind.states() == ["read back"]


async def test_what_was_accepted_and_never_seen_is_lost_after_its_time(
    tmp_path: Path, weave: Weave
) -> None:
    patience = Waits(lost=0.3)
    async with minds(tmp_path / "home", weave.url, patience=patience) as mind:
        weave.fault(drop={"*"})
        await mind.note()
        await mind.memory.checkpoint()
        weave.mine()
        await mind.memory.confirm()
        assert await mind.states() == ["accepted"]
        await asyncio.sleep(0.35)
        await mind.memory.confirm()
        assert await mind.states() == ["lost"]


async def test_a_checkpoint_waits_until_it_is_there_for_good(weave: Weave, mind: Mind) -> None:
    async def mining() -> None:
        for _ in range(20):
            await asyncio.sleep(0.01)
            await weave.mine_meanwhile()

    miner = asyncio.create_task(mining())
    await mind.note()
    standing = await mind.memory.checkpoint(stable=True)
    await miner
    assert standing.segments == {"read back": 1}


async def test_a_clock_that_goes_back_holds_nothing_up(
    weave: Weave, mind: Mind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed, sent and given up by a clock, nothing would move for as long as it went back."""
    weave.fault(drop={"*"})
    await mind.note()
    await mind.memory._seal()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    await mind.memory._send_if_due()
    assert await mind.states() == ["accepted"]
    monkeypatch.setattr(time, "time", lambda: now - 2 * 86_400)
    await mind.note()
    monkeypatch.setattr(time, "time", lambda: now - 3 * 86_400)
    await mind.memory._seal_if_due()
    weave.mine()
    await mind.memory.confirm()
    assert sorted(await mind.states()) == ["lost", "sealed"]
    weave.fault()
    await mind.memory._send_if_due()
    weave.mine(18)
    await mind.memory.confirm()
    assert await mind.states() == ["read back"] * 2
    assert (weave.reached("drop"), len(weave.listed())) == (1, 2)


# -- gateways that do not unbundle ---------------------------------------------------------------


async def test_items_are_found_and_unbundled_where_gateways_do_not(
    tmp_path: Path, weave: Weave, rich: Mind, wallet: JwkWallet
) -> None:
    weave.fault(unbundle=False)
    await rich.note(150)
    await rich.memory.checkpoint()
    stranger = make_item(type(SIGNER)(b"\x77" * 32), b"not yours")
    forged = make_item(SIGNER, b"evil", [("Kind", "segment")])
    forged = parse_item(forged.raw[:-4] + b"lies")
    for data in (make_bundle([stranger, forged]), b"no bundle at all"):
        terms = {"anchor": weave.gateway.anchor(), "reward": FEE}
        tx, chunks = make_transaction(wallet, data, bundle_tags(ME), **terms)
        async with Gateways([weave.url]) as gateways:
            await gateways.post_transaction(tx, chunks)
    weave.mine()
    assert weave.reached("unbundle") == 3
    assert weave.listed() == []
    async with Gateways([weave.url]) as gateways:
        found = await find_bundled_items(gateways, ME)
    items = await rich.items()
    assert [one.item.id for one in found.items] == [item.item for item in items]
    assert {(one.carrier, one.height) for one in found.items} == {(items[0].carrier, 1)}
    assert len(found.refused) == 2
    weave.mine(17)
    async with minds(tmp_path / "restored", weave.url, path=layer1(wallet)) as restored:
        for item in items:  # on a machine that did not sign the transaction
            copy = item._replace(state="mined")
            await restored.journal.commit(lambda tx, copy=copy: tx.outbox.put(copy))
        for mind in (rich, restored):
            await mind.memory.confirm()
            assert set(await mind.states()) == {"read back"}
    assert await paid(weave, wallet) == 3 * FEE  # those of the two strangers among them

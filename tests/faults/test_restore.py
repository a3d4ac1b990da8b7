"""What goes wrong where the sealed log is read: every fault is reached, and said in words."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.arweave_wallet import arweave_wallet

from agentkit.embedded.gateway import Failure, Faults, Gateway, gateway_app
from agentkit.errors import AgentKitError, RunNotFound, StateCorrupt, StoreUnavailable, WrongKey
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.journal.transaction import JournalTransaction
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import Item, make_bundle, make_item, parse_item
from agentkit.memory.arweave.base64url import b64url, name_of
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.layer1 import make_transaction
from agentkit.memory.arweave.unbundling import bundle_tags
from agentkit.memory.restore import wallet_restore
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.sealing import segments, shred
from agentkit.memory.sealing.backlog import seal_all
from agentkit.memory.sealing.segment_chain import SealedSegment, build_chain
from agentkit.memory.sealing.segments import APP, seal, unseal

SIGNER = KeySigner(b"\x66" * 32)
OTHER = KeySigner(b"\x77" * 32)
ME = name_of(SIGNER.public_key)


async def log_of(
    folder: Path, signer: Any = SIGNER, segments_of: int = 5, count: int = 3
) -> list[Item]:
    """Return the sealed segments of a wallet's notes, as they would be posted."""
    journal = await Journal.open(folder, signer.address)
    for number in range(segments_of * count):
        note = e.NoteAdded(topic="t", text=f"note {number + 1}")
        await journal.commit(lambda tx, note=note: tx.append(e.WALLET, note))
        if (number + 1) % segments_of == 0:
            await journal.commit(lambda tx: seal_all(tx, signer))
    sealed = await journal.commit(lambda tx: tx.outbox.in_states("sealed"))
    await journal.close()
    return [parse_item(segment.raw) for segment in sealed]


@pytest.fixture
async def log(tmp_path: Path) -> list[Item]:
    return await log_of(tmp_path / "old")


@pytest.fixture
def weaves(tmp_path: Path, log: list[Item]) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways that both have the log."""
    one, two = (Gateway.open(tmp_path / name) for name in ("one", "two"))
    for weave in (one, two):
        for item in log:
            weave.post_item(item.raw)
        weave.mine()
    yield one, two
    one.close()
    two.close()


@asynccontextmanager
async def serving(*weaves: Gateway) -> AsyncIterator[list[str]]:
    async with AsyncExitStack() as stack:
        urls = []
        for weave in weaves:
            runner = web.AppRunner(gateway_app(weave))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        yield urls


async def fetched(urls: list[str], signer: Any = SIGNER) -> RestoredWallet:
    async with Gateways(urls, rounds=1, timeout=5.0) as gateways:
        return await wallet_restore.fetch(signer, gateways)


def told(found: RestoredWallet) -> str:
    return "\n".join(found.warnings)


def on(item: Item, other: Item) -> dict[str, Faults]:
    """Return what may be done to the data of one item."""
    ids = frozenset([item.id])
    return {
        "flip": Faults(flip=ids),
        "cut": Faults(cut=ids),
        "swap": Faults(swap={item.id: other.id}),
        "without_data": Faults(without_data=ids),
    }


@pytest.mark.parametrize("fault", ["flip", "cut", "swap"])
async def test_what_one_gateway_spoils_comes_from_the_next(
    weaves: tuple[Gateway, Gateway], log: list[Item], fault: str
) -> None:
    one, _ = weaves
    one.set_faults(on(log[1], log[0])[fault])
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert one.bench.reached[fault]
    assert found.events == 15
    assert found.problems == ()
    assert f"segment 6 of {dict(log[1].tags)['Run'][:8]} from {urls[0]} failed:" in told(found)
    assert "the signature does not cover this content" in told(found)


@pytest.mark.parametrize("fault", ["flip", "cut", "swap", "without_data"])
async def test_what_all_gateways_spoil_ends_at_the_last_good_step(
    tmp_path: Path, weaves: tuple[Gateway, Gateway], log: list[Item], fault: str
) -> None:
    for weave in weaves:
        weave.set_faults(on(log[2], log[0])[fault])
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert all(weave.bench.reached[fault] for weave in weaves)
    assert [row.seq for row in found.rows(e.WALLET)] == list(range(1, 11))
    (problem,) = found.problems
    assert problem.startswith("steps 11 to 15 of wallet: ")
    assert problem.endswith("; the last good step is 10")
    assert all(url in problem for url in urls)
    with pytest.raises(StateCorrupt, match="the last good step is 10") as raised:
        await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
    assert "--accept-loss" in raised.value.hint
    assert not (tmp_path / "new").exists()
    journal = await wallet_restore.restore(
        found, tmp_path / "new", SIGNER.address, accept_loss=True
    )
    assert len(await journal.history(e.WALLET)) == 11  # and that it was restored
    await journal.check()
    await journal.close()


async def test_a_gap_is_named_with_what_can_be_done(
    tmp_path: Path, weaves: tuple[Gateway, Gateway], log: list[Item]
) -> None:
    for weave in weaves:
        weave.set_faults(Faults(hide=frozenset([log[1].id])))
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert all(weave.bench.reached["hide"] for weave in weaves)
    sentence = "steps 6 to 10 of wallet are missing on all 2 gateways; the last good step is 5"
    assert found.problems == (sentence,)
    with pytest.raises(StateCorrupt) as raised:
        await wallet_restore.restore(found, tmp_path / "new", SIGNER.address)
    assert "start the old machine" in raised.value.hint


async def test_a_gateway_that_hides_the_newest_is_named_and_outvoted(
    weaves: tuple[Gateway, Gateway],
) -> None:
    one, _ = weaves
    one.set_faults(Faults(hide_newest=2))
    async with serving(*weaves) as urls:
        found = await fetched(urls)
        assert one.bench.reached["hide"]
        assert found.events == 15
        assert f"gateway {urls[0]} is behind: 1 of 3 segments" in told(found)
        alone = await fetched(urls[:1])
    assert alone.events == 5  # nobody can tell from one answer, so it says that
    assert "head not corroborated: only one gateway was asked" in told(alone)


@pytest.mark.parametrize(
    "tags", [{"Seq-First": "99"}, {"Kind": "snapshot"}, {"Run": "00" * 16}, {"Seq-Last": "x"}]
)
async def test_a_forged_tag_changes_nothing(
    weaves: tuple[Gateway, Gateway], tags: dict[str, str]
) -> None:
    one, _ = weaves
    one.set_faults(Faults(forge=tags))
    async with serving(*weaves) as urls:
        for order in (urls, urls[::-1]):
            found = await fetched(order)
            assert found.events == 15
            assert found.problems == ()
    assert one.bench.reached["forge"]


async def test_all_tags_forged_by_the_only_gateway_are_refused(
    weaves: tuple[Gateway, Gateway],
) -> None:
    one, _ = weaves
    one.set_faults(Faults(forge={"Seq-Last": "4"}))
    async with serving(one) as urls:
        with pytest.raises(StateCorrupt, match="the signature does not cover this content"):
            await fetched(urls)
    assert one.bench.reached["forge"]


async def test_items_of_another_key_under_our_tags_are_not_seen(
    weaves: tuple[Gateway, Gateway], log: list[Item]
) -> None:
    forged = make_item(OTHER, log[0].data, log[0].tags)
    for weave in weaves:
        assert weave.post_item(forged.raw)[1]
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert found.events == 15
    assert found.warnings == ()


async def test_a_second_item_of_the_same_events_counts_once(
    weaves: tuple[Gateway, Gateway], log: list[Item]
) -> None:
    """A copy has another id and holds the same; nobody has to be told."""
    copy = seal(SIGNER, unseal(SIGNER, log[1]))
    assert copy.id != log[1].id
    for weave in weaves:
        weave.post_item(copy.raw)
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert found.events == 15
    assert found.warnings == ()
    part = SealedSegment(log[0], unseal(SIGNER, log[0]), 5)
    twice = SealedSegment(copy, part.segment, 3)
    chain = build_chain(e.WALLET, [part, twice], part.position)
    assert [p.item.id for p in chain.parts] == [copy.id]  # confirmed earlier
    assert chain.forks == ()


async def test_no_state_is_not_an_empty_start(
    tmp_path: Path, weaves: tuple[Gateway, Gateway]
) -> None:
    async with serving(*weaves) as urls:
        with pytest.raises(RunNotFound) as raised:
            await fetched(urls, OTHER)
    address = name_of(OTHER.public_key)
    sentence = f"no gateway has any agentkit state for address {address} (key of {OTHER.address})"
    assert str(raised.value) == sentence


async def test_no_gateway_at_all_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await fetched(["http://127.0.0.1:1", "http://127.0.0.1:2"])


async def test_a_gateway_that_dies_meanwhile_is_done_without(
    weaves: tuple[Gateway, Gateway],
) -> None:
    one, _ = weaves
    one.set_faults(Faults(failures=(Failure(path="/raw", times=100),)))
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert one.bench.reached["fail /raw"]
    assert found.events == 15
    assert found.problems == ()


# -- bundles that nobody unpacked ----------------------------------------------------------------


@pytest.fixture
def payer() -> JwkWallet:
    return arweave_wallet()


def bundled(weave: Gateway, payer: JwkWallet, items: list[Item], agent: str = ME) -> None:
    """Put items on the weave inside a layer-1 transaction, which hides them from listings."""
    data = make_bundle(items)
    tags = bundle_tags(agent)
    weave.mint(payer.address, 10**15)
    tx, chunks = make_transaction(
        payer, data, tags, anchor=weave.anchor(), reward=weave.price(len(data))
    )
    inline = b64url(chunks[0].data)
    weave.post_transaction(json.dumps({**tx.document(), "data": inline}).encode())
    weave.mine()
    weave.set_faults(Faults(hide=frozenset(item.id for item in items)))


async def test_bundles_are_unpacked_here_where_a_gateway_does_not(
    tmp_path: Path, log: list[Item], payer: JwkWallet
) -> None:
    junk = make_item(OTHER, b"somebody else's", [*APP, ("Run", "ab")])
    weave = Gateway.open(tmp_path / "bare")
    bundled(weave, payer, [*log, junk])
    async with serving(weave) as urls:
        found = await fetched(urls)
    assert weave.bench.reached["hide"]
    assert found.events == 15
    assert found.problems == ()
    assert {len(part.carrier) for part in found.streams[e.WALLET]} == {43}
    weave.close()


async def test_a_bundle_that_names_us_and_lies_is_refused(
    weaves: tuple[Gateway, Gateway], log: list[Item], payer: JwkWallet
) -> None:
    """Anybody may name us in a tag of theirs."""
    one, _ = weaves
    bundled(one, payer, [make_item(OTHER, b"x", log[0].tags)])
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    assert found.events == 15
    assert found.problems == ()


# -- bounds --------------------------------------------------------------------------------------


async def test_a_bomb_is_not_unpacked(
    weaves: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "MOST_PLAIN_BYTES", 100)
    async with serving(*weaves) as urls:
        with pytest.raises(StateCorrupt, match="more than 100"):
            await fetched(urls)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ([[2**70, 0, "NoteAdded", 1, "{}"]], "a number is none that we write"),
        ([[1, -5, "NoteAdded", 1, "{}"]], "a number is none that we write"),
        ([[1, 0, "NoteAdded", 1, "{}"], [3, 0, "NoteAdded", 1, "{}"]], "stands where 2 does"),
        ([], "it holds no event"),
        ([[]], "cannot be read"),
        ([[float("1e999"), 0, "NoteAdded", 1, "{}"]], "cannot be read"),
        ([["x", 0, "NoteAdded", 1, "{}"]], "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_document_that_no_agent_writes_is_refused(columns: Any, why: str) -> None:
    blobs: dict[str, list[str]] = {"texts": [], "bytes": []}
    document = {"stream": "wallet", "before": "00" * 32, "rows": columns, "blobs": blobs}
    tags = (*APP, ("Run", segments.public_stream_name(SIGNER, "wallet")))
    item = segments.seal_bytes(SIGNER, json.dumps(document).encode(), tags)
    with pytest.raises(StateCorrupt, match=why):
        unseal(SIGNER, item)


def test_deep_nesting_is_refused() -> None:
    item = segments.seal_bytes(SIGNER, b"[" * 200_000, (*APP, ("Run", "ab")))
    with pytest.raises(StateCorrupt, match="cannot be read"):
        segments.open_document(SIGNER, item)


# -- time, disk ----------------------------------------------------------------------------------


async def test_order_is_by_number_never_by_time(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "old", SIGNER.address)
    moments = [2e9, 1e9, 3e9, 0.0]

    def noted(tx: JournalTransaction, at: float) -> None:
        tx._now = at
        tx.append(e.WALLET, e.NoteAdded(topic="t", text=str(at)))

    for at in moments:
        await journal.commit(lambda tx, at=at: noted(tx, at))
        await journal.commit(lambda tx: seal_all(tx, SIGNER))
    raws = [x.raw for x in await journal.commit(lambda tx: tx.outbox.in_states("sealed"))]
    before = await journal.rows(e.WALLET)
    await journal.close()
    weave = Gateway.open(tmp_path / "weave")
    for raw in reversed(raws):  # and the newest is mined first
        weave.post_item(raw)
        weave.mine()
    async with serving(weave) as urls:
        found = await fetched(urls)
    weave.close()
    assert found.rows(e.WALLET) == before
    assert [row.at for row in before] == [int(at * 1e6) for at in moments]


async def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, weaves: tuple[Gateway, Gateway]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    async with serving(*weaves) as urls:
        found = await fetched(urls)
    with pytest.raises(AgentKitError) as raised:
        await wallet_restore.restore(found, tmp_path / "file" / "home", SIGNER.address)
    assert isinstance(raised.value, StoreUnavailable)
    assert raised.value.hint


# -- the local key -------------------------------------------------------------------------------


async def test_what_is_sealed_with_a_local_key_is_gone_with_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sealer = shred.open_shredding(SIGNER, home, make=True)
    path = shred.key_path(home)
    assert path.stat().st_mode & 0o777 == 0o600
    items = await log_of(home, sealer)
    weave = Gateway.open(tmp_path / "weave")
    for item in items:
        weave.post_item(item.raw)
    async with serving(weave) as urls:
        assert (await fetched(urls, shred.open_shredding(SIGNER, home, make=False))).events == 15
        for stranger in (SIGNER, shred.Shredding(SIGNER, os.urandom(32))):
            with pytest.raises(WrongKey) as raised:  # the wallet's key alone is not enough
                await fetched(urls, stranger)
            assert "needs the local key" in str(raised.value)
            assert "that state is gone" in raised.value.hint
    weave.close()
    path.unlink()
    with pytest.raises(WrongKey, match=r"shred\.key, which is not here"):
        shred.open_shredding(SIGNER, home, make=False)
    journal = await Journal.open(home, SIGNER.address)
    with pytest.raises(WrongKey):  # and no new one is made over state that needs the old
        await shred.sealer_of(SIGNER, "shred", journal)
    await journal.close()


async def test_segments_from_before_the_local_key_still_open(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, SIGNER.address)
    for encryption in ("wallet", "shred"):
        sealer = await shred.sealer_of(SIGNER, encryption, journal)
        assert ("shred.key" in shred.describe_sealing(sealer)) == (encryption == "shred")
        note = e.NoteAdded(topic="t", text=encryption)
        await journal.commit(lambda tx, note=note: tx.append(e.WALLET, note))
        await journal.commit(lambda tx, sealer=sealer: seal_all(tx, sealer))
        time.sleep(0.001)  # the outbox is ordered by time
    sealer = await shred.sealer_of(SIGNER, "shred", journal)
    raws = [x.raw for x in await journal.commit(lambda tx: tx.outbox.in_states("sealed"))]
    assert [unseal(sealer, parse_item(raw)).first for raw in raws] == [1, 2]
    await journal.close()

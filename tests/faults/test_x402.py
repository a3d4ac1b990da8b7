"""What goes wrong between a payer, a shop and a facilitator; each fault is seen to be reached.

The chain is the real one; what is counted is what the token says everybody owns.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import vyper
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS, Node
from support.x402_market import (
    MODEL,
    PATH,
    PRICE,
    Payer,
    Shop,
    World,
    answer,
    chain_of,
    facilitator,
    payer,
    shop,
    world_on,
)
from support.x402_sdk_client import InThreads, StockPayer, stock_shop
from vyper.compiler.input_bundle import FilesystemInputBundle

from agentkit.errors import (
    InsufficientFunds,
    IntentMismatch,
    NotAllowed,
    OfferExpired,
    ProtocolBroken,
    Refused,
    RunPaused,
    Unavailable,
)
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import TransferAuthorization
from agentkit.keys.signer import KeySigner
from agentkit.market.seams import Wanted
from agentkit.market.x402 import REQUIRED, SIGNATURE, Challenge, Presented, Proof, Requirement
from agentkit.money import Money
from agentkit.payments.chain import Web3Chain
from agentkit.payments.contracts.build import HERE
from agentkit.payments.facilitator.exact import _transfer_call
from agentkit.payments.x402.rail import X402Rail

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def settling(world: World, tmp_path: Path) -> AsyncIterator[str]:
    async with facilitator(world, tmp_path) as url:
        yield url


@pytest.fixture
async def store(world: World, settling: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(world, tmp_path, settling) as open_shop:
        yield open_shop


@pytest.fixture
async def wallet(world: World, store: Shop, tmp_path: Path) -> AsyncIterator[Payer]:
    async with payer(world, tmp_path, store.url) as one:
        yield one


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


def losing(times: int) -> tuple[Any, list[int]]:
    """Return what loses so many answers to paid requests, and a list that counts them."""
    lost: list[int] = []

    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if SIGNATURE in request.headers and response.status == 200 and len(lost) < times:
            lost.append(1)
            assert request.transport
            request.transport.abort()
        return response

    return around, lost


# -- answers that are lost -----------------------------------------------------------------------


async def test_an_answer_that_is_lost_is_given_again_for_the_same_payment(
    world: World, store: Shop, wallet: Payer
) -> None:
    store.counter.around, lost = losing(2)
    result = await wallet.run()
    assert len(lost) == 2
    assert result.receipts[0].standing == "paid"
    assert result.paid.units == PRICE
    assert store.counter.works == 1
    assert await world.earned() == PRICE
    assert await wallet.spent() == PRICE


async def test_with_a_fresh_nonce_the_same_fault_pays_twice(
    world: World, store: Shop, session: aiohttp.ClientSession
) -> None:
    """The control: the SDK's client, which makes a new payment for each 402."""
    store.counter.around, lost = losing(1)
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, 5 * PRICE)
    stock = StockPayer(world, key, session)
    with pytest.raises(aiohttp.ClientError):
        await stock.post(store.url + PATH, {"model": MODEL})
    status, *_ = await stock.post(store.url + PATH, {"model": MODEL})
    assert (status, len(lost)) == (200, 1)
    assert await world.earned() == 2 * PRICE


async def test_work_that_fails_after_it_was_paid_for_is_done_for_the_same_payment(
    world: World, store: Shop, wallet: Payer
) -> None:
    failed: list[int] = []

    async def fail(request: web.Request, handler: Handler) -> web.StreamResponse:
        store.counter.status = 500 if not failed else 200
        response = await handler(request)
        if response.status == 500:
            failed.append(1)
        return response

    store.counter.around = fail
    result = await wallet.run()
    assert len(failed) == 1
    assert store.counter.works == 2
    assert result.paid.units == PRICE
    assert await world.earned() == PRICE


async def test_an_error_of_the_payers_own_is_kept_like_any_answer(
    world: World, store: Shop, wallet: Payer
) -> None:
    store.counter.status = 422
    task, offer, attempt, payment = await wallet.sign()
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await wallet.provider.submit(task, offer, attempt, payment)
        assert refused.value.unknown, "it may well have been paid"
    assert store.counter.works == 1
    assert await world.earned() == PRICE


# -- one payment, one answer ---------------------------------------------------------------------


async def presented_by(wallet: Payer, url: str) -> tuple[str, dict[str, Any]]:
    """Return a header that pays for one request of a wallet, and that request's body."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession() as session, session.post(url + PATH, json=body) as said:
        challenge = Challenge.read(said.headers[REQUIRED])
    *_, attempt, payment = await wallet.sign()
    accepted = challenge.payable_on(wallet.network)
    assert accepted
    proof = Proof.model_validate(payment.body["proof"])
    return Presented.to(challenge, accepted, proof, attempt.id).header(), body


async def post(url: str, header: str, body: Any, path: str = PATH) -> tuple[int, bytes]:
    headers = {SIGNATURE: header}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body, headers=headers) as said,
    ):
        assert said.headers["Cache-Control"] == "private, no-store"
        return said.status, await said.read()


async def test_presented_many_times_at_once_it_is_done_once(
    world: World, store: Shop, wallet: Payer
) -> None:
    store.counter.seconds = 0.2
    header, body = await presented_by(wallet, store.url)
    said = await asyncio.gather(*(post(store.url, header, body) for _ in range(8)))
    assert {status for status, _ in said} == {200}
    assert len({text for _, text in said}) == 1
    assert store.counter.works == 1
    assert await world.earned() == PRICE


async def test_a_payment_pays_for_no_other_request(
    world: World, settling: str, tmp_path: Path
) -> None:
    prices = {PATH: PRICE, "/other": PRICE}
    async with (
        shop(world, tmp_path, settling, prices=prices) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        header, body = await presented_by(wallet, store.url)
        assert (await post(store.url, header, body))[0] == 200
        assert (await post(store.url, header, body, "/other"))[0] == 409
        assert (await post(store.url, header, body, f"{PATH}?more=1"))[0] == 409
        assert (await post(store.url, header, {**body, "max_tokens": 9}))[0] == 409
        assert store.counter.works == 1
        assert await world.earned() == PRICE


@pytest.mark.parametrize("at_once", [True, False])
async def test_two_servers_of_one_payee_do_not_both_work_for_a_payment(
    world: World, settling: str, tmp_path: Path, at_once: bool
) -> None:
    async with (
        shop(world, tmp_path, settling, name="one") as one,
        shop(world, tmp_path, settling, name="two") as two,
        payer(world, tmp_path, one.url) as wallet,
    ):
        header, body = await presented_by(wallet, one.url)
        if at_once:
            said = await asyncio.gather(*(post(s.url, header, body) for s in (one, two)))
        else:
            said = [await post(s.url, header, body) for s in (one, two)]
        for late in (one, two):
            said.append(await post(late.url, header, body))
        assert sorted({status for status, _ in said}) == [200, 402]
        assert one.counter.works + two.counter.works == 1
        assert await world.earned() == PRICE


async def test_an_identifier_stands_for_one_payment_and_one_request(
    world: World, store: Shop, session: aiohttp.ClientSession, wallet: Payer
) -> None:
    """Named alike, a second payment is not drawn: the answer of the first is given."""
    header, body = await presented_by(wallet, store.url)
    first = Presented.read(header)
    status, text = await post(store.url, header, body)
    assert status == 200
    other = Presented.read((await presented_by(wallet, store.url))[0])
    named = other.model_copy(update={"extensions": first.extensions})
    assert named.payload != first.payload
    assert await post(store.url, named.header(), body) == (200, text)
    assert (await post(store.url, named.header(), {**body, "max_tokens": 9}))[0] == 409
    nameless = first.model_copy(update={"extensions": None})
    assert (await post(store.url, nameless.header(), body))[0] == 409, "who saw it on the chain"
    assert store.counter.works == 1
    assert await world.earned() == PRICE


async def test_money_for_one_buys_one_of_sixteen(
    world: World, store: Shop, session: aiohttp.ClientSession
) -> None:
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, PRICE)
    stock = StockPayer(world, key, session)
    said = await asyncio.gather(
        *(stock.post(store.url + PATH, {"model": MODEL, "n": n}) for n in range(16))
    )
    assert sorted(status for status, *_ in said) == [200] + [402] * 15
    assert store.counter.works == 1
    assert await world.earned() == PRICE


async def test_where_work_comes_before_settling_it_buys_more(
    world: World, session: aiohttp.ClientSession
) -> None:
    """The control: verify, work, settle, as the SDK has it by default."""
    works = []

    async def work(request: web.Request) -> web.Response:
        works.append(1)
        await asyncio.sleep(0.3)
        return web.json_response({})

    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, PRICE)
    async with stock_shop(world, InThreads(world, KEYS[2]), work) as url:
        stock = StockPayer(world, key, session)
        await asyncio.gather(*(stock.post(url + PATH, {"n": n}) for n in range(4)))
    assert len(works) > 1
    assert await world.earned() == PRICE


async def test_a_wallet_that_lost_its_journal_signs_under_the_same_nonce(
    wallet: Payer, tmp_path: Path
) -> None:
    """So the token lets only one of the two payments happen."""
    *_, attempt, payment = await wallet.sign()
    journal = await Journal.open(tmp_path / "new", wallet.signer.address)
    chain = Web3Chain(wallet.network)
    rail = X402Rail(journal, chain, wallet.signer, wallet.network)
    offer = await wallet.desk.offer(wallet.desk.node())
    await rail.fund(offer, attempt.at_most.asset.zero(), Wanted(attempt, lambda tx: None))
    again = await journal.commit(lambda tx: rail.reserve(tx, attempt))
    nonces = [Proof.model_validate(x.body["proof"]).authorization.nonce for x in (payment, again)]
    assert nonces[0] == nonces[1]
    assert nonces[0].endswith("00" * 8), "tokens with sequential nonces take it, too"
    await chain.close()
    await journal.close()


async def test_an_attempt_has_one_payment(wallet: Payer) -> None:
    *_, attempt, payment = await wallet.sign()
    same = await wallet.again(attempt)
    assert same.body == {**payment.body, "again": True}
    more = Money(attempt.at_most.units + 1, attempt.at_most.asset)
    for changed in ({"payee": KeySigner(KEYS[3]).address}, {"at_most": more}):
        with pytest.raises(IntentMismatch):
            await wallet.again(attempt.model_copy(update=changed))
    assert len(await wallet.signed()) == 1


# -- a facilitator that fails, or lies -----------------------------------------------------------


@dataclass
class Front:
    """What stands before a facilitator: it can be away, lose what it is told, or make things up."""

    behind: str
    verify: str = ""
    settle: str = ""
    lie: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def reply(self, request: web.Request) -> web.StreamResponse:
        name = request.path.strip("/")
        self.asked.append(name)
        fault, body = getattr(self, name), await request.read()
        if fault == "away":
            return web.Response(status=503)
        if fault == "lies":
            return web.json_response(self.lie)
        if fault == "lost before":
            assert request.transport
            request.transport.abort()
            return web.Response()
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.behind + request.path, data=body, headers=headers) as said,
        ):
            told = await said.json()
        if fault == "lost after":
            assert request.transport
            request.transport.abort()
        return web.json_response(told)


@asynccontextmanager
async def fronted(behind: str) -> AsyncIterator[tuple[Front, str]]:
    front, app = Front(behind), web.Application()
    app.router.add_post("/{what}", front.reply)
    async with TestServer(app) as server:
        yield front, str(server.make_url("")).rstrip("/")


@pytest.mark.parametrize("fault", ["away", "lost before", "lost after"])
async def test_a_facilitator_that_goes_away_after_verifying(
    world: World, settling: str, tmp_path: Path, fault: str
) -> None:
    """Nothing is served; the same payment presented again is settled once and served."""
    async with (
        fronted(settling) as (front, url),
        shop(world, tmp_path, url) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        header, body = await presented_by(wallet, store.url)
        front.settle = fault
        for _ in range(2):
            assert (await post(store.url, header, body))[0] == 503
        assert store.counter.works == 0
        assert front.asked == ["verify", "settle", "settle"]
        front.settle = ""
        assert (await post(store.url, header, body))[0] == 200
        assert (await post(store.url, header, body))[0] == 200
        assert store.counter.works == 1
        assert await world.earned() == PRICE


async def test_a_run_outlives_a_facilitator_that_is_away(
    world: World, settling: str, tmp_path: Path
) -> None:
    async with (
        fronted(settling) as (front, url),
        shop(world, tmp_path, url) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        front.settle = "lost after"

        async def mend() -> None:
            while front.asked.count("settle") < 2:
                await asyncio.sleep(0.01)
            front.settle = ""

        mending = asyncio.create_task(mend())
        result = await wallet.run()
        await mending
        assert result.paid.units == PRICE
        assert store.counter.works == 1
        assert await world.earned() == PRICE


async def test_a_facilitator_that_says_no(world: World, settling: str, tmp_path: Path) -> None:
    async with (
        fronted(settling) as (front, url),
        shop(world, tmp_path, url) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        no = {"success": False, "errorReason": "hiccup", "transaction": "", "network": "eip155:1"}
        front.settle, front.lie = "lies", no
        header, body = await presented_by(wallet, store.url)
        status, said = await post(store.url, header, body)
        assert (status, b"hiccup" in said, store.counter.works) == (402, True, 0)
        front.settle = ""
        assert (await post(store.url, header, body))[0] == 200
        assert await world.earned() == PRICE


@pytest.mark.parametrize("lie", ["no such transaction", "an earlier payment", "another transfer"])
async def test_a_facilitator_that_lies_is_not_believed(
    world: World, settling: str, tmp_path: Path, lie: str
) -> None:
    async with (
        fronted(settling) as (front, url),
        shop(world, tmp_path, url) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        header, body = await presented_by(wallet, store.url)
        assert (await post(store.url, header, body))[0] == 200
        (earlier,) = await store.journal.commit(lambda tx: tx.every(r.PaidRequest))
        transaction = {"an earlier payment": earlier.transaction}.get(lie, "0x" + "11" * 32)
        if lie == "another transfer":
            await world.mint(world.payee, PRICE)
            block = world.node.rpc("eth_getBlockByNumber", "latest", False)
            transaction = block["transactions"][0]  # type: ignore[index]
        before = await world.earned()
        front.settle = "lies"
        front.lie = {
            "success": True,
            "transaction": transaction,
            "network": world.network.id,
            "payer": wallet.signer.address,
            "amount": str(PRICE),
        }
        header, body = await presented_by(wallet, store.url)
        assert (await post(store.url, header, body))[0] == 402
        assert front.asked.count("settle") == 2, "the lie was told"
        assert store.counter.works == 1
        assert await world.earned() == before


async def test_a_smaller_payment_does_not_take_the_place_of_one_that_was_taken(
    world: World, settling: str, tmp_path: Path
) -> None:
    """It has the same nonce, and its facilitator is the payer's friend: it shows the transfer."""
    async with (
        fronted(settling) as (front, url),
        shop(world, tmp_path, url) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        header, body = await presented_by(wallet, store.url)
        front.settle = "away"
        assert (await post(store.url, header, body))[0] == 503
        good = Presented.read(header)
        smaller = good.payload.authorization.model_copy(update={"value": "1"})
        message = TransferAuthorization(
            payer=smaller.sender,
            payee=smaller.to,
            units=1,
            valid_before=int(smaller.valid_before),
            nonce=bytes.fromhex(smaller.nonce[2:]),
            valid_after=int(smaller.valid_after),
        )
        signature = wallet.signer.sign_transfer(world.network.token_domain, message)
        proof = Proof(signature="0x" + signature.hex(), authorization=smaller)
        changed = good.model_copy(update={"payload": proof})
        await world.send(world.network.token, _transfer_call(changed))
        block = world.node.rpc("eth_getBlockByNumber", "latest", False)
        front.settle, front.lie = (
            "lies",
            {
                "success": True,
                "transaction": block["transactions"][0],  # type: ignore[index]
                "network": world.network.id,
            },
        )
        assert (await post(store.url, changed.header(), body))[0] == 402
        assert store.counter.works == 0


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"<html>", b"[" * 100_000, b"x" * 100_000])
async def test_a_facilitator_that_makes_no_sense(
    world: World, settling: str, tmp_path: Path, garbage: bytes
) -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(body=garbage, content_type="application/json")

    app = web.Application()
    app.router.add_post("/verify", nonsense)
    async with (
        TestServer(app) as server,
        shop(world, tmp_path, str(server.make_url("")).rstrip("/")) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        header, body = await presented_by(wallet, store.url)
        assert (await post(store.url, header, body))[0] == 503
        assert store.counter.works == 0


async def test_a_token_that_lets_a_used_nonce_pass_pays_nobody_twice(
    node: Node, tmp_path: Path
) -> None:
    """Its transaction succeeds and moves nothing; a second facilitator does not know better."""
    source = (HERE / "TestUSD.vy").read_text()
    use = "    self._use(given.payer, given.nonce)\n"
    log = "log AuthorizationUsed(authorizer=given.payer, nonce=given.nonce)\n"
    quiet = source.replace(
        use,
        "    if self.authorizationState[given.payer][given.nonce]:\n"
        f"        {log}        return\n{use}",
    )
    assert quiet.count(f"        {log}        return\n") == 1
    bundle = FilesystemInputBundle([HERE])
    compiled = vyper.compile_code(quiet, output_formats=["bytecode"], input_bundle=bundle)
    code = compiled["bytecode"]
    async with (
        world_on(node, bytes.fromhex(code[2:])) as world,
        facilitator(world, tmp_path / "one") as first,
        facilitator(world, tmp_path / "two") as second,
        shop(world, tmp_path, first, name="one") as one,
        shop(world, tmp_path, second, name="two") as two,
        payer(world, tmp_path, one.url) as wallet,
    ):
        header, body = await presented_by(wallet, one.url)
        assert (await post(one.url, header, body))[0] == 200
        status, said = await post(two.url, header, body)
        assert (status, b"transfer_event_mismatch" in said) == (402, True)
        assert (one.counter.works, two.counter.works) == (1, 0)
        assert await world.earned() == PRICE


# -- a shop that changes its mind, or never has enough --------------------------------------------


@dataclass
class Bazaar:
    """A shop that asks for whatever a test says, and takes every payment without settling it."""

    world: World
    accepts: list[dict[str, Any]]
    url: str = ""
    paid: list[str] = field(default_factory=list)
    after: list[dict[str, Any]] | None = None
    headers: list[tuple[str, str]] | None = None
    identifies: bool = True
    serves: bool = False

    async def reply(self, request: web.Request) -> web.Response:
        accepts = self.accepts
        if SIGNATURE in request.headers:
            self.paid.append(request.headers[SIGNATURE])
            accepts = accepts if self.after is None else self.after
            if self.serves:
                return web.json_response(answer("for nothing"))
        info = {"payment-identifier": {"info": {"required": False}}} if self.identifies else None
        asked = Challenge(x402_version=2, accepts=accepts, extensions=info)
        response = web.Response(status=402)
        for name, value in self.headers or [(REQUIRED, asked.header())]:
            response.headers.add(name, value)
        return response


def broken(address: str) -> str:
    """Return an address whose checksum is wrong."""
    at = next(n for n in range(2, 42) if address[n].isalpha())
    return address[:at] + address[at].swapcase() + address[at + 1 :]


def asking(world: World, **changes: Any) -> dict[str, Any]:
    wanted = Requirement.on(world.network, world.payee, PRICE, timeout=60)
    return {**wanted.document(), **changes}


@pytest.fixture
async def bazaar(world: World) -> AsyncIterator[Bazaar]:
    one = Bazaar(world, [asking(world)])
    app = web.Application()
    app.router.add_post(PATH, one.reply)
    async with TestServer(app) as server:
        one.url = str(server.make_url("")).rstrip("/")
        yield one


@pytest.fixture
async def visitor(world: World, bazaar: Bazaar, tmp_path: Path) -> AsyncIterator[Payer]:
    async with payer(world, tmp_path, bazaar.url, limit="0.002 USDC per request") as one:
        yield one


CHANGES = [
    pytest.param({"amount": str(PRICE + 1)}, id="dearer"),
    pytest.param({"amount": str(PRICE - 1)}, id="cheaper"),
    pytest.param({"payTo": KeySigner(KEYS[3]).address}, id="another payee"),
    pytest.param({"asset": "0x" + "33" * 20}, id="another asset"),
    pytest.param({"network": "eip155:8453"}, id="another network"),
    pytest.param({"scheme": "upto"}, id="another scheme"),
    pytest.param({"extra": {"name": "Other", "version": "1"}}, id="another domain"),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_terms_that_change_before_the_payment_leaves_cost_nothing(
    bazaar: Bazaar, visitor: Payer, change: dict[str, Any]
) -> None:
    task, offer, attempt, payment = await visitor.sign()
    bazaar.accepts = [asking(bazaar.world, **change)]
    with pytest.raises(OfferExpired) as expired:
        await visitor.provider.submit(task, offer, attempt, payment)
    assert not expired.value.unknown
    assert not bazaar.paid


@pytest.mark.parametrize("change", CHANGES)
async def test_terms_that_change_once_it_left_leave_it_open(
    bazaar: Bazaar, visitor: Payer, change: dict[str, Any]
) -> None:
    task, offer, attempt, payment = await visitor.sign()
    bazaar.after = [asking(bazaar.world, **change)]
    with pytest.raises(OfferExpired) as expired:
        await visitor.provider.submit(task, offer, attempt, payment)
    assert expired.value.unknown
    assert len(bazaar.paid) == 1
    again = await visitor.again(attempt)
    bazaar.accepts = bazaar.after
    bazaar.serves = True
    await visitor.provider.submit(task, offer, attempt, again)
    first, second = map(Presented.read, bazaar.paid)
    assert first.payload == second.payload


async def test_without_an_identifier_a_lost_answer_is_uncertain(
    world: World, bazaar: Bazaar, visitor: Payer
) -> None:
    bazaar.identifies = False
    with pytest.raises(RunPaused) as paused:
        await visitor.run()
    assert paused.value.uncertain
    assert len(bazaar.paid) == 1
    assert await visitor.spent() == PRICE


async def test_a_price_above_the_limit_is_not_an_offer(bazaar: Bazaar, visitor: Payer) -> None:
    bazaar.accepts = [asking(bazaar.world, amount="2001")]
    with pytest.raises(Refused, match="above"):
        await visitor.sign()
    assert not await visitor.signed()


async def test_another_payee_than_the_configured_one_is_refused(
    world: World, bazaar: Bazaar, tmp_path: Path
) -> None:
    other = KeySigner(KEYS[3]).address
    async with payer(world, tmp_path, bazaar.url, payee=other) as careful:
        with pytest.raises(Refused, match="configured"):
            await careful.sign()
    async with payer(world, tmp_path, bazaar.url, payee=world.payee.lower()) as careful:
        await careful.sign()


async def test_of_several_ways_to_pay_ours_is_taken(bazaar: Bazaar, visitor: Payer) -> None:
    """The cheap ones are on chains, in assets or by schemes that this wallet does not have."""
    world = bazaar.world
    bazaar.accepts = [
        asking(world, amount="1", network="eip155:8453"),
        asking(world, amount="1", network="solana:5eykt", payTo="9xQeWvG816bUx9EPjHmaT23yvVM2"),
        asking(world, amount="1", asset="0x" + "33" * 20),
        asking(world, amount="1", scheme="upto"),
        asking(
            world,
            amount="1",
            extra={"name": "USD Coin", "version": "1", "assetTransferMethod": "permit2"},
        ),
        {"scheme": "exact", "network": world.network.id, "surprise": [1, 2]},
        asking(world, amount="1", payTo="0x" + "00" * 20),
        asking(world, amount="1", payTo=broken(world.payee)),
        asking(world, amount="0"),
        asking(world, amount="1500"),
        asking(world),
    ]
    _, offer, attempt, _ = await visitor.sign()
    assert (offer.price.units, offer.payee) == (PRICE, world.payee)
    assert attempt.at_most.units == PRICE
    bazaar.accepts = bazaar.accepts[:-2]
    with pytest.raises(Refused, match="it asks for the token"):
        await visitor.sign()


async def test_nobody_pays_himself(world: World, bazaar: Bazaar, visitor: Payer) -> None:
    bazaar.accepts = [asking(world, payTo=visitor.signer.address)]
    with pytest.raises(NotAllowed, match="itself"):
        await visitor.sign()


async def test_a_shop_cannot_make_an_authorization_last(bazaar: Bazaar, visitor: Payer) -> None:
    bazaar.accepts = [asking(bazaar.world, maxTimeoutSeconds=100 * 365 * 86_400)]
    await visitor.sign()
    (signed,) = await visitor.signed()
    assert signed.valid_before <= time.time() + 900


# -- headers -------------------------------------------------------------------------------------


GARBAGE = {
    "empty": "",
    "not base64": "!!!",
    "not json": "bm90IGpzb24=",
    "a list": "W10=",
    "deep": base64.b64encode(b"[" * 5000).decode(),
    "large": "A" * 20_000,
    "another version": base64.b64encode(b'{"x402Version":1,"accepts":[]}').decode(),
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_challenge_that_cannot_be_read_is_not_paid(
    bazaar: Bazaar, visitor: Payer, garbage: str
) -> None:
    bazaar.headers = [(REQUIRED, GARBAGE[garbage])]
    with pytest.raises((ProtocolBroken, Unavailable)):
        await visitor.sign()
    assert not await visitor.signed()


async def test_two_challenges_are_none(bazaar: Bazaar, visitor: Payer) -> None:
    header = Challenge(x402_version=2, accepts=[asking(bazaar.world)]).header()
    bazaar.headers = [(REQUIRED, header), (REQUIRED, header)]
    with pytest.raises(ProtocolBroken):
        await visitor.sign()
    bazaar.headers = []
    bazaar.headers = [("X-Other", "1")]
    with pytest.raises(ProtocolBroken):
        await visitor.sign()


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_payment_that_cannot_be_read_is_refused(
    store: Shop, session: aiohttp.ClientSession, garbage: str
) -> None:
    headers = {SIGNATURE: GARBAGE[garbage]}
    async with session.post(store.url + PATH, json={}, headers=headers) as said:
        assert said.status == 400
    assert store.counter.works == 0


async def test_one_payment_for_a_request_is_enough(
    store: Shop, wallet: Payer, session: aiohttp.ClientSession
) -> None:
    header, body = await presented_by(wallet, store.url)
    twice = [(SIGNATURE, header), (SIGNATURE, header)]
    async with session.post(store.url + PATH, json=body, headers=twice) as said:
        assert said.status == 400
    assert store.counter.works == 0


async def test_a_get_of_what_is_sold_by_post_is_not_paid_for(
    world: World, store: Shop, wallet: Payer, session: aiohttp.ClientSession
) -> None:
    header, _ = await presented_by(wallet, store.url)
    async with session.get(store.url + PATH, headers={SIGNATURE: header}) as said:
        assert said.status == 405
    assert await world.earned() == 0


async def test_a_payment_of_another_time_or_amount_is_refused_at_the_door(
    world: World, settling: str, tmp_path: Path
) -> None:
    """Without asking the facilitator, and whatever it would say."""
    async with (
        fronted(settling) as (front, url),
        shop(world, tmp_path, url) as store,
        payer(world, tmp_path, store.url) as wallet,
    ):
        header, body = await presented_by(wallet, store.url)
        good = Presented.read(header)
        now, paid = int(time.time()), good.payload.authorization

        async def refused(what: str, **changes: Any) -> None:
            inner = {k: v for k, v in changes.items() if k in type(paid).model_fields}
            outer = {k: v for k, v in changes.items() if k in Requirement.model_fields}
            authorization = paid.model_copy(update=inner)
            payload = good.payload.model_copy(update={"authorization": authorization})
            accepted = good.accepted.model_copy(update=outer)
            changed = good.model_copy(update={"payload": payload, "accepted": accepted})
            assert (await post(store.url, changed.header(), body))[0] == 402, what

        await refused("past", valid_before=str(now - 1))
        await refused("too soon", valid_before=str(now + 2))
        await refused("in a hundred years", valid_before=str(now + 100 * 365 * 86_400))
        await refused("not yet", valid_after=str(now + 60))
        await refused("less", value=str(PRICE - 1), amount=str(PRICE - 1))
        await refused("less inside", value=str(PRICE - 1))
        await refused("more", value=str(PRICE + 1), amount=str(PRICE + 1))
        await refused("to another", to=KeySigner(KEYS[3]).address)
        await refused("another asset", asset="0x" + "33" * 20)
        await refused("another network", network="eip155:8453")
        assert not front.asked
        assert store.counter.works == 0
        assert (await post(store.url, header, body))[0] == 200


async def test_a_signature_that_is_wrong_is_not_settled(
    world: World, store: Shop, wallet: Payer
) -> None:
    header, body = await presented_by(wallet, store.url)
    good = Presented.read(header)
    flipped = good.payload.signature[:-4] + ("0" if good.payload.signature[-4] != "0" else "1")
    payload = good.payload.model_copy(update={"signature": flipped + good.payload.signature[-3:]})
    bad = good.model_copy(update={"payload": payload})
    assert (await post(store.url, bad.header(), body))[0] == 402
    assert store.counter.works == 0
    assert (await post(store.url, header, body))[0] == 200, "nobody took its place"


class TestTime:
    """What an authorization's end brings, each on a chain whose clock is its own."""

    @pytest.fixture
    def node(self, tmp_path: Path) -> Iterator[Node]:
        with chain_of("embedded", tmp_path) as running:
            yield running

    async def test_the_wallet_promises_no_more_than_it_holds(
        self, world: World, store: Shop, tmp_path: Path
    ) -> None:
        """What was signed counts until the chain shows it drawn, or past its time."""
        async with payer(world, tmp_path, store.url, units=2 * PRICE) as wallet:
            bought = [await wallet.sign(), await wallet.sign()]
            with pytest.raises(InsufficientFunds, match="promised"):
                await wallet.sign()
            assert len(await wallet.signed()) == 2
            task, offer, attempt, payment = bought[0]
            await wallet.provider.submit(task, offer, attempt, payment)
            with pytest.raises(InsufficientFunds):
                await wallet.sign()
            world.later(3600)
            await wallet.sign()
            assert [x.outcome for x in await wallet.signed()].count("expired") == 1
        async with payer(world, tmp_path, store.url, units=0) as poor:
            with pytest.raises(InsufficientFunds):
                await poor.sign()
            assert not await poor.signed()

    async def test_a_run_that_is_asked_again_and_again_pays_at_most_once(
        self, world: World, bazaar: Bazaar, visitor: Payer
    ) -> None:
        """It stays counted for as long as the authorization can be drawn, and then comes back."""
        with pytest.raises(RunPaused) as paused:
            await visitor.run()
        assert paused.value.uncertain
        assert len(bazaar.paid) == 2
        payments = {Presented.read(header).payload.model_dump_json() for header in bazaar.paid}
        assert len(payments) == 1
        assert len(await visitor.signed()) == 1
        with pytest.raises(RunPaused):
            await visitor.resume(paused.value.run_id)
        assert len(await visitor.signed()) == 1, "it may still be drawn"
        world.later(3600)
        with pytest.raises(RunPaused):
            await visitor.resume(paused.value.run_id)
        first, *others = await visitor.signed()
        assert len(bazaar.paid) > 3, "it was bought again"
        assert {x.outcome for x in (first, *others)} == {"expired"}
        assert first.nonce not in {x.nonce for x in others}
        assert await visitor.spent() == 0
        assert await world.earned() == 0

    async def test_what_expired_unused_is_not_spent(
        self, world: World, bazaar: Bazaar, visitor: Payer
    ) -> None:
        """Delivered and never drawn: the books give back what the chain says never moved."""
        bazaar.serves = True
        result = await visitor.run()
        assert result.paid.units == PRICE
        assert await visitor.spent() == PRICE
        await visitor.rail.reconcile()
        assert await visitor.spent() == PRICE, "it may still be drawn"
        world.later(3600)
        assert await visitor.rail.balance() == {}
        await visitor.rail.reconcile()
        assert await visitor.spent() == 0

    async def test_clocks_that_differ_give_nothing_back_too_early(
        self, world: World, bazaar: Bazaar, visitor: Payer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The chain's clock says when an authorization has ended, whatever ours says."""
        *_, attempt, _ = await visitor.sign()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        assert await visitor.rail.lookup(attempt) == "open"
        monkeypatch.setattr(time, "time", lambda: real() - 86_400)
        assert await visitor.rail.lookup(attempt) == "open"
        world.later(3600)
        assert await visitor.rail.lookup(attempt) == "unpaid"

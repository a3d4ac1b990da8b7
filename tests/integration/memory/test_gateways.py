"""The client against the embedded gateway over loopback, with a front that fails and lies."""

import asyncio
import dataclasses
import gzip
import json
import os
import time
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from support.arweave_wallet import arweave_wallet

from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.errors import StateCorrupt, StoreUnavailable
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave import gateways as gateways_module
from agentkit.memory.arweave.ans104 import make_item
from agentkit.memory.arweave.base64url import b64url, name_of
from agentkit.memory.arweave.gateways import Gateways, ItemStatus
from agentkit.memory.arweave.layer1 import make_transaction
from agentkit.memory.arweave.merkle import MAX_CHUNK

SIGNER = KeySigner(bytes(range(1, 33)))
OTHER = KeySigner(bytes([7] * 32))
ME = name_of(SIGNER.public_key)
TAGS = (("App-Name", "agentkit"), ("Größe", "☕"))
ITEM = make_item(SIGNER, b"hello permaweb", TAGS)


class Front:
    """A gateway before the real one: `answer` may take a request over, `change` an answer."""

    def __init__(self, url: str) -> None:
        self.real = url
        self.asked: list[str] = []
        self.answer: Callable[[web.Request], web.StreamResponse | None] = lambda request: None
        self.change: Callable[[str, bytes], bytes] = lambda path, body: body
        self.app = web.Application(client_max_size=1 << 30)
        self.app.router.add_route("*", "/{path:.*}", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        own = self.answer(request)
        if own is not None:
            return own
        headers = {"Content-Type": request.headers.get("Content-Type", "")}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                self.real + request.path,
                data=request.content,
                headers=headers,
            ) as response,
        ):
            body = self.change(request.path, await response.read())
            return web.Response(status=response.status, body=body)

    def relist(self, change: Callable[[dict], object]) -> None:
        """Change every node of a listing."""

        def changed(path: str, body: bytes) -> bytes:
            if path != "/graphql":
                return body
            listing = json.loads(body)
            for edge in listing["data"]["transactions"]["edges"]:
                change(edge["node"])
            return json.dumps(listing).encode()

        self.change = changed


def status(code: int, path: str = "", **headers: str):
    """Return what answers `code` to every request, or to those of a path."""

    def answer(request):
        if path and not request.path.startswith(path):
            return None
        return web.Response(status=code, text="out of order", headers=headers)

    return answer


def body(text: bytes, path: str):
    return lambda request: web.Response(body=text) if request.path.startswith(path) else None


@pytest.fixture
def wallet():
    return arweave_wallet()


@pytest.fixture
async def url(gateway):
    async with TestServer(gateway_app(gateway)) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def front(url):
    front = Front(url)
    async with TestServer(front.app) as server:
        front.url = str(server.make_url("")).rstrip("/")
        yield front


def client(*urls, **settings):
    return Gateways(urls, **{"timeout": 5.0, "backoff": 0.001, **settings})


# -- the whole way -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000, 300_000, 5_000_000])
async def test_an_item_goes_up_is_found_and_comes_back(url, size):
    item = make_item(SIGNER, os.urandom(size), TAGS)
    async with client(url) as gateways:
        assert await gateways.post_item(item.raw) == item.id
        findings = await gateways.find(ME, TAGS)
        (found,) = findings.items
        assert (found.id, found.tags, found.height) == (item.id, TAGS, 1)
        assert await gateways.item(found) == item
        assert await gateways.item_data(item.id) == item.data
        assert (findings.failed, findings.behind) == ((), ())


async def test_only_what_the_owner_posted_under_all_tags_is_found(url):
    wanted = make_item(SIGNER, b"1", [("App-Name", "agentkit"), ("Run", "1"), ("More", "x")])
    others = [
        make_item(SIGNER, b"2", [("App-Name", "agentkit"), ("Run", "2")]),
        make_item(OTHER, b"3", [("App-Name", "agentkit"), ("Run", "1")]),
    ]
    async with client(url) as gateways:
        for item in (wanted, *others):
            await gateways.post_item(item.raw)
        found = (await gateways.find(ME, [("App-Name", "agentkit"), ("Run", "1")])).items
        assert [one.id for one in found] == [wanted.id]
        assert len((await gateways.find(ME)).items) == 2
        assert (await gateways.find(name_of(b"nobody"))).items == ()


async def test_all_pages_are_read_oldest_first(url, gateway):
    names = [gateway.post_item(make_item(SIGNER, b"%d" % n).raw)[0].id for n in range(250)]
    async with client(url) as gateways:
        assert [found.id for found in (await gateways.find(ME)).items] == names


async def test_posting_again_is_no_error_and_stores_nothing(url):
    async with client(url) as gateways:
        for _ in range(3):
            assert await gateways.post_item(ITEM.raw) == ITEM.id
        assert len((await gateways.find(ME)).items) == 1


async def test_the_status_of_an_item_grows_with_the_blocks(tmp_path, clock):
    gateway = Gateway.open(tmp_path / "slow", block_seconds=120, clock=clock)
    async with TestServer(gateway_app(gateway)) as server, client(str(server.make_url(""))) as c:
        assert await c.status(ITEM.id) == ItemStatus(known=False)
        await c.post_item(ITEM.raw)
        assert await c.status(ITEM.id) == ItemStatus(known=True)
        assert (await c.find(ME)).items[0].height is None
        clock.now += 18 * 120
        assert await c.status(ITEM.id) == ItemStatus(True, 1, 18)
    gateway.close()


@pytest.mark.parametrize("size", [0, 1, MAX_CHUNK, MAX_CHUNK + 1, 12_000_000])
async def test_a_layer_1_transaction_goes_up_and_comes_back(url, gateway, wallet, size):
    data = os.urandom(size)
    async with client(url) as gateways:
        gateway.mint(wallet.address, 10**15)
        reward, anchor = await gateways.price(size), await gateways.anchor()
        tx, chunks = make_transaction(wallet, data, TAGS, anchor=anchor, reward=reward)
        for _ in range(2):  # an answer that was lost
            assert await gateways.post_transaction(tx, chunks) == tx.id
        assert await gateways.item_data(tx.id) == data
        assert gateway.balance(wallet.address) == 10**15 - reward
        assert (await gateways.find(wallet.address, TAGS)).items[0].id == tx.id
        assert (await gateways.status(tx.id)).known


async def test_items_go_to_the_upload_service_and_nowhere_else(url, front):
    front.answer = lambda request: web.Response(status=500) if request.method == "POST" else None
    async with client(front.url, uploads=[url]) as gateways:
        assert await gateways.post_item(ITEM.raw) == ITEM.id
        assert front.asked == []


async def test_a_closed_client_opens_itself_again(url):
    gateways = client(url)
    await gateways.anchor()
    await gateways.close()
    await gateways.close()
    assert await gateways.anchor()
    await gateways.close()


# -- gateways that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 402, 404, 413, 429, 500, 502, 503])
async def test_the_next_gateway_does_what_the_first_will_not(front, url, code):
    front.answer = status(code)
    async with client(front.url, url, rounds=1) as gateways:
        assert await gateways.post_item(ITEM.raw) == ITEM.id
        (found,) = (await gateways.find(ME)).items
        assert await gateways.item(found) == ITEM
        assert await gateways.price(1) > 0


async def test_a_gateway_that_does_not_answer_is_left_after_the_timeout(url):
    async def hang(_request):
        await asyncio.sleep(30)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hang)
    async with TestServer(app) as server:
        silent = str(server.make_url(""))
        start = time.monotonic()
        async with client(silent, url, timeout=0.2, rounds=1) as gateways:
            assert await gateways.post_item(ITEM.raw) == ITEM.id
        async with client(silent, timeout=0.2, rounds=1) as alone:
            with pytest.raises(StoreUnavailable, match="in time"):
                await alone.anchor()
        assert time.monotonic() - start < 8


async def test_a_gateway_that_drips_is_left_after_the_timeout(url, gateway):
    gateway.post_item(ITEM.raw)

    async def drip(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(300):
            await response.write(b".")
            await asyncio.sleep(0.1)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", drip)
    async with TestServer(app) as server:
        start = time.monotonic()
        async with client(str(server.make_url("")), url, timeout=0.3, rounds=1) as gateways:
            assert await gateways.item_data(ITEM.id) == ITEM.data
        assert time.monotonic() - start < 5


async def test_a_gateway_that_is_not_there_is_left(url):
    async with client(f"http://127.0.0.1:{unused_port()}", url, rounds=1) as gateways:
        assert await gateways.post_item(ITEM.raw) == ITEM.id


async def test_when_all_fail_the_error_says_what_each_did(front):
    front.answer = status(503)
    gone = f"http://127.0.0.1:{unused_port()}"
    async with client(front.url, gone, rounds=2) as gateways:
        for call in (gateways.post_item(ITEM.raw), gateways.anchor(), gateways.find(ME)):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert f"{front.url} answered 503 'out of order'" in str(caught.value)
            assert f"{gone} cannot be reached" in str(caught.value)
            assert caught.value.hint
        with pytest.raises(StoreUnavailable):
            await gateways.status(ITEM.id)


@pytest.mark.parametrize(("code", "asked"), [(503, 4), (429, 4), (400, 1), (402, 1), (404, 1)])
async def test_only_a_failure_that_may_pass_is_tried_again(front, code, asked):
    front.answer = status(code)
    async with client(front.url, rounds=4) as gateways:
        with pytest.raises(StoreUnavailable):
            await gateways.post_item(ITEM.raw)
    assert len(front.asked) == asked


async def test_a_passing_failure_passes(front):
    def twice(request):
        return web.Response(status=503) if len(front.asked) < 3 else None

    front.answer = twice
    async with client(front.url) as gateways:
        assert await gateways.post_item(ITEM.raw) == ITEM.id
    assert len(front.asked) == 3


async def test_retry_after_is_respected(front):
    def once(request):
        if len(front.asked) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return None

    front.answer = once
    async with client(front.url) as gateways:
        start = time.monotonic()
        await gateways.post_item(ITEM.raw)
        assert 0.9 < time.monotonic() - start < 3
    assert len(front.asked) == 2


async def test_a_gateway_that_asked_for_rest_is_not_asked_meanwhile(front, url):
    front.answer = status(429, **{"Retry-After": "999999"})
    async with client(front.url, url) as gateways:
        for _ in range(3):
            await gateways.anchor()
    assert len(front.asked) == 1


async def test_not_even_when_the_others_have_nothing(front, url):
    front.answer = status(429, **{"Retry-After": "60"})
    async with client(front.url, url, rounds=1) as gateways:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="answered 404"):
                await gateways.item_data(ITEM.id)
    assert len(front.asked) == 1


async def test_a_gateway_that_failed_is_asked_last(front, url):
    front.answer = status(500)
    async with client(front.url, url) as gateways:
        for _ in range(3):
            await gateways.anchor()
    assert len(front.asked) == 1


async def test_chunks_that_were_taken_are_not_sent_again(front, gateway, wallet):
    gateway.mint(wallet.address, 10**15)

    def once(request):
        third = request.path == "/chunk" and front.asked.count("POST /chunk") == 3
        return web.Response(status=502) if third else None

    front.answer = once
    data = os.urandom(5 * MAX_CHUNK - 1)
    async with client(front.url) as gateways:
        anchor, reward = await gateways.anchor(), await gateways.price(len(data))
        tx, chunks = make_transaction(wallet, data, [], anchor=anchor, reward=reward)
        await gateways.post_transaction(tx, chunks)
        assert await gateways.item_data(tx.id) == data
    assert front.asked.count("POST /chunk") == 5 + 1
    assert front.asked.count("POST /tx") == 2


async def test_another_gateway_gets_the_header_and_all_chunks(front, url, gateway, wallet):
    gateway.mint(wallet.address, 10**15)
    front.answer = status(500, "/chunk")
    data = os.urandom(600_000)
    async with client(front.url, url, rounds=1) as gateways:
        tx, chunks = make_transaction(
            wallet, data, [], anchor=gateway.anchor(), reward=gateway.price(len(data))
        )
        await gateways.post_transaction(tx, chunks)
    assert gateway.data(tx.id) == data


# -- gateways that lie ---------------------------------------------------------------------------


def swap(name: str, value: object):
    return lambda node: node.update({name: value})


LIES = {
    "data": lambda front: setattr(front, "change", lambda p, b: b"evil" if "/raw" in p else b),
    "cut": lambda front: setattr(front, "change", lambda p, b: b[:-1] if "/raw" in p else b),
    "long": lambda front: setattr(front, "change", lambda p, b: b + b"!" if "/raw" in p else b),
    "tag": lambda front: front.relist(
        swap("tags", [*({"name": n, "value": v} for n, v in TAGS), {"name": "x", "value": "y"}])
    ),
    "anchor": lambda front: front.relist(swap("anchor", b64url(bytes(32)))),
    "target": lambda front: front.relist(swap("recipient", b64url(bytes(32)))),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_found_out_and_the_honest_gateway_is_used(front, url, gateway, lie):
    gateway.post_item(ITEM.raw)
    LIES[lie](front)
    async with client(front.url) as alone:
        (found,) = (await alone.find(ME, TAGS)).items
        with pytest.raises(StateCorrupt, match=front.url):
            await alone.item(found)
    async with client(front.url, url) as gateways:
        (found,) = (await gateways.find(ME, TAGS)).items
        assert await gateways.item(found) == ITEM


def foreign(node):
    item = make_item(OTHER, b"hello permaweb", TAGS)
    node["id"], node["signature"] = item.id, b64url(item.signature)
    node["owner"] = {"address": ME, "key": b64url(OTHER.public_key)}


FALSE_NODES = {
    "a foreign item": foreign,
    "another id": swap("id", name_of(b"x")),
    "another signature": swap("signature", b64url(bytes(65))),
    "no signature": swap("signature", None),
    "another owner": swap("owner", {"key": b64url(OTHER.public_key)}),
    "tags that were not asked for": swap("tags", [{"name": "a", "value": "b"}]),
    "what is not base64url": swap("signature", "?"),
}


@pytest.mark.parametrize("lie", FALSE_NODES)
async def test_an_entry_that_cannot_be_true_is_not_found(front, url, gateway, lie):
    gateway.post_item(ITEM.raw)
    front.relist(FALSE_NODES[lie])
    async with client(front.url, url) as gateways:
        findings = await gateways.find(ME, TAGS)
        assert [found.id for found in findings.items] == [ITEM.id]
        (report,) = findings.failed
        assert (report.url, report.listed, report.missing) == (front.url, 0, 1)
        assert "it lists" in report.problem or "base64url" in report.problem
        assert await gateways.item(findings.items[0]) == ITEM
    async with client(front.url) as alone:
        with pytest.raises(StoreUnavailable):
            await alone.find(ME, TAGS)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"errors": [{"message": "tired"}]}',
        b'{"data": {"transactions": null}}',
        b'{"data": {"transactions": {"edges": [{}]}}}',
        b'{"data": {"transactions": {"pageInfo": {"hasNextPage": true}, "edges": []}}}',
        b"[" * 100_000,
        b'{"data": ' + b" " * 5_000_000 + b"}",
    ],
    ids=range(9),
)
async def test_an_answer_that_is_not_a_listing_is_a_problem_of_its_gateway(
    front, url, gateway, answer
):
    gateway.post_item(ITEM.raw)
    front.answer = body(answer, "/graphql")
    async with client(front.url, url) as gateways:
        findings = await gateways.find(ME)
        assert [report.url for report in findings.failed] == [front.url]
        assert len(findings.items) == 1
        assert (await gateways.status(ITEM.id)).known


@pytest.mark.parametrize("repeated", [True, False], ids=["in a circle", "ever onwards"])
async def test_a_listing_without_end_is_given_up(front, monkeypatch, repeated):
    monkeypatch.setattr(gateways_module, "MAX_LISTING_BYTES", 20_000)
    node = {
        "id": ITEM.id,
        "signature": b64url(ITEM.signature),
        "owner": {"key": b64url(ITEM.owner)},
        "tags": [{"name": name, "value": value} for name, value in ITEM.tags],
    }

    def page(_request):
        edge = {"cursor": "same" if repeated else str(len(front.asked)), "node": node}
        listing = {"pageInfo": {"hasNextPage": True}, "edges": [edge]}
        return web.json_response({"data": {"transactions": listing}})

    front.answer = page
    async with client(front.url) as gateways:
        findings = await gateways.find(ME)
    assert "does not end" in findings.failed[0].problem
    assert [found.id for found in findings.items] == [ITEM.id]
    assert len(front.asked) == 2 if repeated else 20 < len(front.asked) < 60


async def test_a_true_item_under_another_id_is_not_what_was_found(url, gateway):
    gateway.post_item(ITEM.raw)
    async with client(url) as gateways:
        (found,) = (await gateways.find(ME)).items
    assert found.with_data(ITEM.data) == ITEM
    with pytest.raises(StateCorrupt, match=ITEM.id):
        dataclasses.replace(found, id=name_of(b"x")).with_data(ITEM.data)


async def test_a_gateway_that_hides_the_newest_is_behind(front, url, gateway):
    items = [make_item(SIGNER, b"%d" % n) for n in range(5)]
    for item in items:
        gateway.post_item(item.raw)

    def hide(path, text):
        listing = json.loads(text)
        del listing["data"]["transactions"]["edges"][3:]
        return json.dumps(listing).encode()

    front.change = hide
    async with client(front.url, url) as gateways:
        findings = await gateways.find(ME)
        assert [found.id for found in findings.items] == [item.id for item in items]
        assert findings.failed == ()
        (report,) = findings.behind
        assert (report.url, report.listed, report.missing) == (front.url, 3, 2)


async def test_one_gateway_down_is_reported_beside_what_the_other_has(front, url, gateway):
    gateway.post_item(ITEM.raw)
    front.answer = status(502)
    async with client(front.url, url, rounds=2) as gateways:
        findings = await gateways.find(ME)
        assert [found.id for found in findings.items] == [ITEM.id]
        assert "answered 502" in findings.failed[0].problem
        assert findings.behind == ()


async def test_nothing_found_is_not_a_failure(url):
    async with client(url) as gateways:
        findings = await gateways.find(ME)
        assert (findings.items, findings.failed) == ((), ())


async def test_a_receipt_for_another_item_is_no_receipt(front, url):
    front.answer = body(json.dumps({"id": name_of(b"x")}).encode(), "/v1/tx")
    async with client(front.url, rounds=1) as alone:
        with pytest.raises(StateCorrupt, match="receipt"):
            await alone.post_item(ITEM.raw)
    async with client(front.url, url, rounds=1) as gateways:
        assert await gateways.post_item(ITEM.raw) == ITEM.id


async def test_more_data_than_allowed_is_not_read(front, gateway):
    gateway.post_item(make_item(SIGNER, bytes(100_000)).raw)
    (found,) = gateway.query("{transactions{edges{node{id}}}}", {})["data"]["transactions"]["edges"]
    name = found["node"]["id"]
    async with client(front.url) as gateways:
        assert len(await gateways.item_data(name, limit=100_000)) == 100_000
        with pytest.raises(StoreUnavailable, match="more than 99999 bytes"):
            await gateways.item_data(name, limit=99_999)


async def test_a_redirect_is_not_followed(front, url, gateway):
    gateway.post_item(ITEM.raw)
    front.answer = lambda request: web.Response(status=302, headers={"Location": f"{url}/mine"})
    height = gateway.height()
    async with client(front.url) as gateways:
        with pytest.raises(StoreUnavailable, match="302"):
            await gateways.item_data(ITEM.id)
    assert gateway.height() == height


async def test_compressed_data_is_not_unpacked(front, gateway):
    gateway.post_item(ITEM.raw)
    front.answer = lambda request: (
        web.Response(body=gzip.compress(bytes(10_000_000)), headers={"Content-Encoding": "gzip"})
        if request.path.startswith("/raw")
        else None
    )
    async with client(front.url) as gateways:
        (found,) = (await gateways.find(ME)).items
        assert len(await gateways.item_data(ITEM.id, limit=20_000)) < 20_000
        with pytest.raises(StateCorrupt):
            await gateways.item(found)


@pytest.mark.parametrize("answer", [b"", b"free", b"-1", b"1e9", b"1.5", b"9" * 24 + b"9"])
async def test_a_price_that_is_not_a_number_is_refused(front, url, answer):
    front.answer = body(answer, "/price")
    async with client(front.url, rounds=1) as alone:
        with pytest.raises((StateCorrupt, StoreUnavailable)):
            await alone.price(1)
    async with client(front.url, url, rounds=1) as gateways:
        assert await gateways.price(1) == 212_037_686


@pytest.mark.parametrize("answer", [b"", b"../x", b64url(bytes(31)).encode(), b"\xff" * 48])
async def test_an_anchor_that_is_not_a_hash_is_refused(front, answer):
    front.answer = body(answer, "/tx_anchor")
    async with client(front.url, rounds=1) as gateways:
        with pytest.raises(StateCorrupt, match=front.url):
            await gateways.anchor()


@pytest.mark.parametrize("name", ["", "../../mine", "x" * 43, "short"])
async def test_what_is_not_an_id_is_not_asked_for(front, name):
    async with client(front.url) as gateways:
        for call in (gateways.item_data, gateways.status):
            with pytest.raises(StateCorrupt):
                await call(name)
    assert front.asked == []

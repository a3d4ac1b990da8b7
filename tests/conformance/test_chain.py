"""One suite for every chain: whatever passes here, payments can work on."""

import asyncio
import json
import urllib.error
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_account import Account
from hexbytes import HexBytes
from support import chain_processes
from support.chain_processes import CHAIN_ID, KEYS, WEALTH, Node
from support.timing import limit
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.contract import AsyncContract
from web3.exceptions import ContractLogicError, TransactionNotFound, Web3RPCError
from web3.logs import DISCARD
from web3.types import TxReceipt

from agentkit.keys.messages import (
    HALF_ORDER,
    Accept,
    Domain,
    Quote,
    ReceiveAuthorization,
    Release,
    Voucher,
    keccak,
    typed_digest,
)
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import load

DEPLOYER, PAYER, PROVIDER, STRANGER, SESSION = map(KeySigner, KEYS)
SECRETS = {KeySigner(key).address: key for key in KEYS}
MINTED = 10**9
DELAY = 3600
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {chain_processes.TOKEN}"}
ORDER = 2 * HALF_ORDER + 1
TRANSFER = keccak(b"Transfer(address,address,uint256)")


@pytest.fixture(scope="module", params=["embedded", pytest.param("anvil", marks=pytest.mark.anvil)])
def node(request: Any, tmp_path_factory: Any) -> Iterator[Node]:
    if request.param == "anvil":
        running = chain_processes.anvil()
    else:
        running = chain_processes.embedded(tmp_path_factory.mktemp("chain") / "chain.db")
    with running as started:
        yield started


@pytest.fixture
async def w3(node: Node) -> AsyncIterator[AsyncWeb3]:
    provider = AsyncHTTPProvider(node.url, request_kwargs={"headers": HEADERS})
    yield AsyncWeb3(provider)
    await provider.disconnect()


async def send(w3: AsyncWeb3, who: KeySigner, function: Any, **fields: Any) -> TxReceipt:
    """Do it as web3's users do: estimate, price, sign, send, wait."""
    nonce = await w3.eth.get_transaction_count(who.address)
    transaction = await function.build_transaction({"from": who.address, "nonce": nonce, **fields})
    signed = Account.sign_transaction(transaction, SECRETS[who.address])
    digest = await w3.eth.send_raw_transaction(signed.raw_transaction)
    return await w3.eth.wait_for_transaction_receipt(digest, poll_latency=0.01)


async def deployed(w3: AsyncWeb3, name: str) -> AsyncContract:
    built = load(name)
    factory = w3.eth.contract(abi=built.abi, bytecode=built.bytecode)
    receipt = await send(w3, DEPLOYER, factory.constructor())
    return w3.eth.contract(address=receipt["contractAddress"], abi=built.abi)


async def raw_transfer(w3: AsyncWeb3, who: KeySigner, to: str, **fields: Any) -> bytes:
    base = (await w3.eth.get_block("latest"))["baseFeePerGas"]
    transaction = {
        "chainId": CHAIN_ID,
        "nonce": await w3.eth.get_transaction_count(who.address),
        "to": to,
        "value": 1,
        "gas": 21000,
        "maxFeePerGas": 2 * base + 10**9,
        "maxPriorityFeePerGas": 10**9,
        **fields,
    }
    return bytes(Account.sign_transaction(transaction, SECRETS[who.address]).raw_transaction)


async def now(w3: AsyncWeb3) -> int:
    return (await w3.eth.get_block("latest"))["timestamp"]


async def later(w3: AsyncWeb3, seconds: int) -> None:
    await w3.provider.make_request("evm_increaseTime", [seconds])
    await w3.provider.make_request("evm_mine", [])


@dataclass(frozen=True)
class Scene:
    """A payer with tokens, and one of its channels with a provider."""

    w3: AsyncWeb3
    token: AsyncContract
    channels: AsyncContract
    salt: bytes = bytes(32)
    delay: int = DELAY

    @property
    def config(self) -> tuple[str, str, str, str, int, bytes]:
        who = (PAYER.address, SESSION.address, PROVIDER.address)
        return (*who, self.token.address, self.delay, self.salt)

    @property
    def domain(self) -> Domain:
        return Domain("AgentChannels", "1", CHAIN_ID, self.channels.address)

    async def id(self) -> bytes:
        return await self.channels.functions.channelId(self.config).call()

    async def do(self, who: KeySigner, name: str, *arguments: Any) -> TxReceipt:
        """Send it and see it succeed."""
        receipt = await send(self.w3, who, self.channels.functions[name](self.config, *arguments))
        assert receipt["status"] == 1
        return receipt

    async def refused(self, reason: str, who: KeySigner, name: str, *arguments: Any) -> None:
        """See it refused for this reason, and see that sending it changes nothing."""
        function = self.channels.functions[name](self.config, *arguments)
        with pytest.raises(ContractLogicError) as caught:
            await function.call({"from": who.address})
        assert caught.value.message == f"execution reverted: {reason}"
        before = await self.books()
        receipt = await send(self.w3, who, function, gas=500_000)
        assert receipt["status"] == 0
        assert not receipt["logs"]
        assert await self.books() == before

    async def books(self) -> dict[str, Any]:
        """What everybody has, and what the contract says of the channel."""
        held = (self.channels.address, PAYER.address, PROVIDER.address, STRANGER.address)
        balances = [await self.token.functions.balanceOf(one).call() for one in held]
        identity = await self.id()
        state = await self.channels.functions.channels(identity).call()
        closing = await self.channels.functions.closingAt(identity).call()
        names = ("held", "payer", "provider", "stranger", "state", "closing")
        return dict(zip(names, (*balances, tuple(state), closing), strict=True))

    async def voucher(self, cumulative: int, signer: KeySigner = SESSION, **changed: Any) -> Any:
        """The arguments with which a voucher is claimed."""
        signed = replace(Voucher(await self.id(), cumulative, 3, keccak(b"root")), **changed)
        r, s, v = split(signer.sign_voucher(self.domain, signed))
        return (cumulative, 3, keccak(b"root")), v, r, s

    async def release(self, claimed: int, signer: KeySigner = PROVIDER) -> Any:
        """Return the arguments of a release: the sum and its signature."""
        signature = signer.sign_release(self.domain, Release(await self.id(), claimed))
        r, s, v = split(signature)
        return claimed, v, r, s

    async def authorization(self, units: int, signer: KeySigner = PAYER, **changed: Any) -> Any:
        """The arguments with which a signed top-up is brought."""
        identity = await self.id()
        deposited, _ = await self.channels.functions.channels(identity).call()
        until = await now(self.w3) + 600
        nonce = keccak(identity + deposited.to_bytes(32, "big"))
        given = ReceiveAuthorization(PAYER.address, self.channels.address, units, until, nonce)
        domain = Domain("USD Coin", "1", CHAIN_ID, self.token.address)
        r, s, v = split(signer.sign_authorization(domain, replace(given, **changed)))
        return units, until, v, r, s


def split(signature: bytes) -> tuple[bytes, bytes, int]:
    return signature[:32], signature[32:64], signature[64]


@pytest.fixture
async def scene(w3: AsyncWeb3) -> Scene:
    token, channels = await deployed(w3, "TestUSD"), await deployed(w3, "AgentChannels")
    await send(w3, DEPLOYER, token.functions.mint(PAYER.address, MINTED))
    await send(w3, PAYER, token.functions.approve(channels.address, 2**256 - 1))
    return Scene(w3, token, channels)


@pytest.fixture
async def funded(scene: Scene) -> Scene:
    await scene.do(PAYER, "fund", 1000)
    return scene


# -- the node ------------------------------------------------------------------------------------


async def test_a_transfer_moves_coins_and_costs_what_its_receipt_says(w3: AsyncWeb3) -> None:
    to = Account.create().address
    before = await w3.eth.get_balance(STRANGER.address)
    digest = await w3.eth.send_raw_transaction(await raw_transfer(w3, STRANGER, to, value=77))
    receipt = await w3.eth.wait_for_transaction_receipt(digest)
    assert receipt["gasUsed"] == 21000
    cost = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    assert await w3.eth.get_balance(to) == 77
    assert await w3.eth.get_balance(STRANGER.address) == before - 77 - cost
    assert await w3.eth.get_balance(to, receipt["blockNumber"] - 1) == 0


async def test_the_chain_says_what_it_is(w3: AsyncWeb3) -> None:
    assert await w3.eth.chain_id == CHAIN_ID
    assert await w3.net.version == str(CHAIN_ID)
    assert await w3.client_version
    assert await w3.eth.gas_price > 0
    assert await w3.eth.max_priority_fee > 0
    assert (await w3.eth.get_block(0))["number"] == 0
    assert await w3.eth.get_balance(DEPLOYER.address, 0) in (0, WEALTH)


async def mined(w3: AsyncWeb3, digest: Any) -> Any:
    """Return a transaction once it names its block: anvil shows it as pending a moment longer."""
    async with asyncio.timeout(limit(10)):
        while not (sent := await w3.eth.get_transaction(digest))["blockHash"]:
            await asyncio.sleep(0.02)
    return sent


async def test_blocks_hold_their_transactions(w3: AsyncWeb3) -> None:
    digest = await w3.eth.send_raw_transaction(await raw_transfer(w3, STRANGER, PAYER.address))
    receipt = await w3.eth.wait_for_transaction_receipt(digest)
    sent = await mined(w3, digest)
    block = await w3.eth.get_block(receipt["blockNumber"], full_transactions=True)
    assert block["transactions"][receipt["transactionIndex"]]["hash"] == digest
    assert (await w3.eth.get_block(block["hash"]))["transactions"] == [digest]
    assert (sent["from"], sent["to"], sent["value"]) == (STRANGER.address, PAYER.address, 1)
    assert sent["blockHash"] == block["hash"] == receipt["blockHash"]
    assert block["parentHash"] == (await w3.eth.get_block(block["number"] - 1))["hash"]
    assert receipt["from"] == STRANGER.address
    assert (sent["type"], receipt["type"], sent["chainId"]) == (2, 2, CHAIN_ID)


async def test_older_kinds_of_transactions_count_too(w3: AsyncWeb3) -> None:
    plain = {"chainId": CHAIN_ID, "to": PAYER.address, "value": 1, "gas": 30_000}
    listed = {
        "type": 1,
        "accessList": [{"address": PAYER.address, "storageKeys": ["0x" + "0" * 64]}],
    }
    for kind in ({}, listed):
        nonce = await w3.eth.get_transaction_count(STRANGER.address)
        fields = {**plain, **kind, "nonce": nonce, "gasPrice": await w3.eth.gas_price * 2}
        signed = Account.sign_transaction(fields, SECRETS[STRANGER.address])
        digest = await w3.eth.send_raw_transaction(signed.raw_transaction)
        receipt = await w3.eth.wait_for_transaction_receipt(digest)
        assert receipt["status"] == 1
        assert receipt["effectiveGasPrice"] == fields["gasPrice"]
        assert (await w3.eth.get_transaction(digest))["gasPrice"] == fields["gasPrice"]


async def test_what_is_not_there_is_not_found(w3: AsyncWeb3) -> None:
    with pytest.raises(TransactionNotFound):
        await w3.eth.get_transaction_receipt("0x" + "11" * 32)
    with pytest.raises(TransactionNotFound):
        await w3.eth.get_transaction("0x" + "11" * 32)
    assert await w3.eth.get_code("0x" + "22" * 20) == b""
    assert await w3.eth.get_transaction_count("0x" + "22" * 20) == 0


async def test_fee_history_has_a_price_for_the_next_block(w3: AsyncWeb3) -> None:
    sent = await w3.eth.send_raw_transaction(await raw_transfer(w3, STRANGER, PAYER.address))
    await w3.eth.wait_for_transaction_receipt(sent)
    history = await w3.eth.fee_history(2, "latest", [50.0])
    assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1 == 3
    assert len(history["reward"]) == 2
    newest = await w3.eth.get_block("latest")
    assert history["baseFeePerGas"][1] == newest["baseFeePerGas"]
    assert history["gasUsedRatio"][1] == newest["gasUsed"] / newest["gasLimit"]


async def test_a_used_nonce_is_too_low(w3: AsyncWeb3) -> None:
    nonce = await w3.eth.get_transaction_count(STRANGER.address)
    await w3.eth.send_raw_transaction(await raw_transfer(w3, STRANGER, PAYER.address))
    other = await raw_transfer(w3, STRANGER, PROVIDER.address, nonce=nonce)
    with pytest.raises(Web3RPCError, match="nonce too low"):
        await w3.eth.send_raw_transaction(other)
    assert await w3.eth.get_transaction_count(STRANGER.address) == nonce + 1


async def test_the_same_bytes_twice_count_once(w3: AsyncWeb3, node: Node) -> None:
    to = Account.create().address
    raw = await raw_transfer(w3, STRANGER, to)
    digest = await w3.eth.send_raw_transaction(raw)
    if node.kind == "embedded":
        assert await w3.eth.send_raw_transaction(raw) == digest
    else:
        with pytest.raises(Web3RPCError):
            await w3.eth.send_raw_transaction(raw)
    assert await w3.eth.get_balance(to) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chainId": 1}, "chain id"),
        ({"value": 2 * WEALTH}, "[Ii]nsufficient funds"),
        ({"gas": 20_999}, "gas"),
        ({"gas": 10**9}, "gas"),
        ({"maxFeePerGas": 1, "maxPriorityFeePerGas": 0}, "fee"),
    ],
)
async def test_what_no_block_can_hold_is_refused(
    w3: AsyncWeb3, fields: dict[str, Any], said: str
) -> None:
    head, nonce = await w3.eth.block_number, await w3.eth.get_transaction_count(STRANGER.address)
    with pytest.raises(Web3RPCError, match=said):
        await w3.eth.send_raw_transaction(await raw_transfer(w3, STRANGER, PAYER.address, **fields))
    assert await w3.eth.block_number == head
    assert await w3.eth.get_transaction_count(STRANGER.address) == nonce


async def test_rubbish_is_not_a_transaction(w3: AsyncWeb3) -> None:
    head = await w3.eth.block_number
    raw = await raw_transfer(w3, STRANGER, PAYER.address)
    for broken in (b"", b"\x00", raw[:-1], b"\x05" + raw[1:], b"\xc0"):
        with pytest.raises(Web3RPCError):
            await w3.eth.send_raw_transaction(HexBytes(broken))
    assert await w3.eth.block_number == head


async def test_an_estimate_is_enough_and_not_much_more(funded: Scene) -> None:
    claim = funded.channels.functions.claim(funded.config, *await funded.voucher(10))
    estimate = await claim.estimate_gas({"from": STRANGER.address})
    receipt = await send(funded.w3, STRANGER, claim, gas=estimate)
    assert receipt["status"] == 1
    assert receipt["gasUsed"] <= estimate <= 1.1 * receipt["gasUsed"]


async def test_less_than_the_estimate_runs_out_of_gas(funded: Scene) -> None:
    claim = funded.channels.functions.claim(funded.config, *await funded.voucher(10))
    estimate = await claim.estimate_gas({"from": STRANGER.address})
    receipt = await send(funded.w3, STRANGER, claim, gas=int(estimate * 0.9))
    assert receipt["status"] == 0
    assert not receipt["logs"]


async def test_an_estimate_of_what_reverts_says_why(scene: Scene) -> None:
    with pytest.raises(ContractLogicError, match="NotPayer"):
        await scene.channels.functions.fund(scene.config, 1).estimate_gas(
            {"from": STRANGER.address}
        )


async def test_logs_are_found_by_place_address_and_topics(scene: Scene) -> None:
    w3, token = scene.w3, scene.token
    first = await w3.eth.block_number + 1
    receipts = [
        await send(w3, PAYER, token.functions.transfer(to.address, units))
        for to, units in ((PROVIDER, 1), (STRANGER, 2), (PROVIDER, 3))
    ]
    await scene.do(PAYER, "fund", 9)

    async def units(**wanted: Any) -> list[int]:
        found = await w3.eth.get_logs({"fromBlock": first, "address": token.address, **wanted})
        return [int.from_bytes(log["data"], "big") for log in found]

    def topic(who: KeySigner) -> str:
        return "0x" + bytes(12).hex() + who.address[2:].lower()

    assert await units() == [1, 2, 3, 9]
    assert await units(toBlock=receipts[1]["blockNumber"]) == [1, 2]
    assert await units(fromBlock=receipts[1]["blockNumber"], toBlock="latest") == [2, 3, 9]
    assert await units(topics=[TRANSFER, None, topic(PROVIDER)]) == [1, 3]
    assert await units(topics=[None, None, [topic(PROVIDER), topic(STRANGER)]]) == [1, 2, 3]
    assert await units(topics=[None, topic(PROVIDER)]) == []
    assert await units(address=[token.address, scene.channels.address], topics=[TRANSFER]) == [
        *(1, 2, 3, 9)
    ]
    in_block = {"blockHash": receipts[2]["blockHash"], "address": token.address}
    (log,) = await w3.eth.get_logs(in_block)
    assert log == receipts[2]["logs"][0]


# -- the token -----------------------------------------------------------------------------------


async def test_the_artifacts_are_what_lies_on_the_chain(scene: Scene) -> None:
    for contract, name in ((scene.token, "TestUSD"), (scene.channels, "AgentChannels")):
        code = await scene.w3.eth.get_code(contract.address)
        built = load(name)
        assert code[:1000] == built.bytecode[built.bytecode.index(code[:1000]) :][:1000]
    domain = Domain("USD Coin", "1", CHAIN_ID, scene.token.address)
    assert await scene.token.functions.DOMAIN_SEPARATOR().call() == domain.separator
    assert await scene.channels.functions.DOMAIN_SEPARATOR().call() == scene.domain.separator
    assert await scene.token.functions.decimals().call() == 6


async def test_only_the_deployer_mints(scene: Scene) -> None:
    mint = scene.token.functions.mint(STRANGER.address, 1)
    with pytest.raises(ContractLogicError, match="minter"):
        await mint.call({"from": STRANGER.address})
    receipt = await send(scene.w3, STRANGER, mint, gas=100_000)
    assert receipt["status"] == 0
    assert await scene.token.functions.totalSupply().call() == MINTED


async def test_an_allowance_ends_where_it_ends(scene: Scene) -> None:
    token = scene.token.functions
    await send(scene.w3, PAYER, token.approve(STRANGER.address, 5))
    taken = token.transferFrom(PAYER.address, STRANGER.address, 5)
    assert (await send(scene.w3, STRANGER, taken))["status"] == 1
    with pytest.raises(ContractLogicError, match="allowance"):
        await token.transferFrom(PAYER.address, STRANGER.address, 1).call(
            {"from": STRANGER.address}
        )


async def test_a_permit_is_an_allowance_once(scene: Scene) -> None:
    until = await now(scene.w3) + 600
    message = {"owner": PAYER.address, "spender": STRANGER.address, "value": 7, "nonce": 0}
    types = [("owner", "address"), ("spender", "address")]
    types += [(name, "uint256") for name in ("value", "nonce", "deadline")]
    signed = Account.sign_typed_data(
        SECRETS[PAYER.address],
        {
            "name": "USD Coin",
            "version": "1",
            "chainId": CHAIN_ID,
            "verifyingContract": scene.token.address,
        },
        {"Permit": [{"name": name, "type": kind} for name, kind in types]},
        {**message, "deadline": until},
    )
    r, s, v = split(signed.signature)
    permit = scene.token.functions.permit(PAYER.address, STRANGER.address, 7, until, v, r, s)
    assert (await send(scene.w3, STRANGER, permit))["status"] == 1
    assert await scene.token.functions.allowance(PAYER.address, STRANGER.address).call() == 7
    with pytest.raises(ContractLogicError, match="invalid signature"):
        await permit.call({"from": STRANGER.address})


# -- channels: paying in -------------------------------------------------------------------------


async def test_funding_adds_up(scene: Scene) -> None:
    receipt = await scene.do(PAYER, "fund", 1000)
    (event,) = scene.channels.events.Funded().process_receipt(receipt, errors=DISCARD)
    assert event["args"]["id"] == await scene.id()
    assert (event["args"]["amount"], event["args"]["deposited"]) == (1000, 1000)
    await scene.do(PAYER, "fund", 500)
    books = await scene.books()
    assert books["state"] == (1500, 0)
    assert (books["held"], books["payer"]) == (1500, MINTED - 1500)


async def test_only_the_payer_funds(scene: Scene) -> None:
    await scene.refused("NotPayer", STRANGER, "fund", 1000)
    await scene.refused("Zero", PAYER, "fund", 0)


@pytest.mark.parametrize("delay", [0, 899, 30 * 86400 + 1])
async def test_a_channel_must_close_in_reasonable_time(scene: Scene, delay: int) -> None:
    await replace(scene, delay=delay).refused("BadConfig", PAYER, "fund", 1000)


@pytest.mark.parametrize("delay", [900, 30 * 86400])
async def test_the_bounds_of_the_close_delay_are_allowed(scene: Scene, delay: int) -> None:
    await replace(scene, delay=delay).do(PAYER, "fund", 1000)


async def test_anybody_brings_a_signed_top_up_and_it_lands_once(scene: Scene) -> None:
    signed = await scene.authorization(1000)
    await scene.do(STRANGER, "fundWithAuthorization", *signed)
    assert (await scene.books())["state"] == (1000, 0)
    await scene.refused("invalid signature", STRANGER, "fundWithAuthorization", *signed)
    await scene.do(STRANGER, "fundWithAuthorization", *await scene.authorization(500))
    books = await scene.books()
    assert books["state"] == (1500, 0)
    assert (books["held"], books["payer"]) == (1500, MINTED - 1500)


async def test_a_top_up_is_good_for_its_channel_amount_and_time_only(scene: Scene) -> None:
    top_up = "fundWithAuthorization"
    units, until, *signature = await scene.authorization(1000)
    elsewhere = replace(scene, salt=keccak(b"another channel"))
    await elsewhere.refused("invalid signature", STRANGER, top_up, units, until, *signature)
    await scene.refused("invalid signature", STRANGER, top_up, units + 1, until, *signature)
    await scene.refused("invalid signature", STRANGER, top_up, units, until + 1, *signature)
    forged = await scene.authorization(1000, signer=STRANGER)
    await scene.refused("invalid signature", STRANGER, top_up, *forged)
    await later(scene.w3, 601)
    await scene.refused("authorization is expired", STRANGER, top_up, units, until, *signature)


# -- channels: paying out ------------------------------------------------------------------------


async def test_a_claim_pays_what_the_voucher_adds(funded: Scene) -> None:
    receipt = await funded.do(STRANGER, "claim", *await funded.voucher(300))
    (event,) = funded.channels.events.Claimed().process_receipt(receipt, errors=DISCARD)
    assert event["args"] == {
        "id": await funded.id(),
        "amount": 300,
        "cumulative": 300,
        "tasks": 3,
        "receiptsRoot": keccak(b"root"),
    }
    receipt = await funded.do(PROVIDER, "claim", *await funded.voucher(450))
    (event,) = funded.channels.events.Claimed().process_receipt(receipt, errors=DISCARD)
    assert (event["args"]["amount"], event["args"]["cumulative"]) == (150, 450)
    books = await funded.books()
    assert (books["provider"], books["held"], books["state"]) == (450, 550, (1000, 450))


async def test_a_voucher_pays_once(funded: Scene) -> None:
    voucher = await funded.voucher(300)
    await funded.do(PROVIDER, "claim", *voucher)
    await funded.refused("NothingNew", PROVIDER, "claim", *voucher)
    await funded.refused("NothingNew", PROVIDER, "claim", *await funded.voucher(299))
    await funded.refused("NothingNew", PROVIDER, "claimAndClose", *voucher)


async def test_nothing_beyond_the_deposit_is_paid(funded: Scene) -> None:
    await funded.refused("OverDeposit", PROVIDER, "claim", *await funded.voucher(1001))
    await funded.refused("OverDeposit", PROVIDER, "claim", *await funded.voucher(2**128 - 1))
    await funded.do(PROVIDER, "claim", *await funded.voucher(1000))


async def test_only_the_voucher_key_signs(funded: Scene) -> None:
    for signer in (PAYER, PROVIDER, STRANGER):
        voucher = await funded.voucher(300, signer=signer)
        await funded.refused("BadSignature", PROVIDER, "claim", *voucher)


async def test_a_signature_has_one_form(funded: Scene) -> None:
    voucher, v, r, s = await funded.voucher(300)
    high = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    for form in ((55 - v, r, high), (v - 27, r, s), (0, bytes(32), bytes(32)), (v, s, r)):
        await funded.refused("BadSignature", PROVIDER, "claim", voucher, *form)
    await funded.do(PROVIDER, "claim", voucher, v, r, s)


async def test_a_voucher_is_good_for_its_channel_and_contract_only(funded: Scene) -> None:
    other = replace(funded, salt=keccak(b"another channel"))
    await other.do(PAYER, "fund", 1000)
    elsewhere = await funded.voucher(300, channel=await other.id())
    await funded.refused("BadSignature", PROVIDER, "claim", *elsewhere)
    twin = replace(funded, channels=await deployed(funded.w3, "AgentChannels"))
    signed = replace(Voucher(await funded.id(), 300, 3, keccak(b"root")))
    r, s, v = split(SESSION.sign_voucher(twin.domain, signed))
    voucher = (300, 3, keccak(b"root"))
    await funded.refused("BadSignature", PROVIDER, "claim", voucher, v, r, s)


async def test_what_was_signed_cannot_be_changed(funded: Scene) -> None:
    _, *signature = await funded.voucher(300)
    root = keccak(b"root")
    for voucher in ((301, 3, root), (300, 4, root), (300, 3, bytes(32))):
        await funded.refused("BadSignature", PROVIDER, "claim", voucher, *signature)


# -- channels: closing ---------------------------------------------------------------------------


async def spent(scene: Scene) -> None:
    """See that nothing can be done with the channel any more."""
    await scene.refused("Closing", PAYER, "fund", 5)
    top_up = await scene.authorization(5)
    await scene.refused("Closing", STRANGER, "fundWithAuthorization", *top_up)
    _, claimed = (await scene.books())["state"]
    for name in ("claim", "claimAndClose"):
        await scene.refused("OverDeposit", PROVIDER, name, *await scene.voucher(claimed + 1))
    await scene.refused("Closing", PAYER, "requestClose")
    await scene.refused("Closed", STRANGER, "finishClose")
    await later(scene.w3, 31 * 86400)
    await scene.refused("Closed", STRANGER, "finishClose")


async def test_the_last_claim_gives_the_rest_back(funded: Scene) -> None:
    voucher = await funded.voucher(400)
    for who in (PAYER, STRANGER):
        await funded.refused("NotProvider", who, "claimAndClose", *voucher)
    receipt = await funded.do(PROVIDER, "claimAndClose", *voucher)
    (event,) = funded.channels.events.Closed().process_receipt(receipt, errors=DISCARD)
    assert event["args"] == {"id": await funded.id(), "refunded": 600}
    books = await funded.books()
    assert (books["held"], books["payer"], books["provider"]) == (0, MINTED - 400, 400)
    assert (books["state"], books["closing"]) == ((400, 400), 2**40 - 1)
    await spent(funded)


async def test_a_whole_deposit_can_be_claimed(funded: Scene) -> None:
    await funded.do(PROVIDER, "claimAndClose", *await funded.voucher(1000))
    books = await funded.books()
    assert (books["held"], books["payer"], books["provider"]) == (0, MINTED - 1000, 1000)


async def test_a_provider_releases_what_it_does_not_claim(funded: Scene) -> None:
    await funded.do(PROVIDER, "claim", *await funded.voucher(250))
    for signer in (PAYER, STRANGER, SESSION):
        forged = await funded.release(250, signer=signer)
        await funded.refused("BadSignature", PROVIDER, "closeWithRelease", *forged)
    for other in (0, 249, 251):
        wrong = await funded.release(other)
        await funded.refused("OtherClaims", PROVIDER, "closeWithRelease", *wrong)
    await funded.do(STRANGER, "closeWithRelease", *await funded.release(250))
    books = await funded.books()
    assert (books["held"], books["payer"], books["provider"]) == (0, MINTED - 250, 250)
    await funded.refused("Closed", PROVIDER, "closeWithRelease", *await funded.release(250))
    await spent(funded)


async def test_a_channel_nothing_was_claimed_from_is_released_whole(funded: Scene) -> None:
    await funded.do(PROVIDER, "closeWithRelease", *await funded.release(0))
    books = await funded.books()
    assert (books["held"], books["payer"], books["state"]) == (0, MINTED, (0, 0))
    await funded.refused("NotOpen", PROVIDER, "closeWithRelease", *await funded.release(0))
    await funded.refused("Closing", PAYER, "fund", 1)


async def test_the_payer_gets_the_rest_after_the_delay(funded: Scene) -> None:
    await funded.refused("NotPayer", PROVIDER, "requestClose")
    await funded.refused("NotClosing", PAYER, "finishClose")
    receipt = await funded.do(PAYER, "requestClose")
    asked = (await funded.w3.eth.get_block(receipt["blockNumber"]))["timestamp"]
    assert (await funded.books())["closing"] == asked + DELAY
    await funded.refused("Closing", PAYER, "requestClose")
    await funded.refused("Closing", PAYER, "fund", 5)
    await funded.refused("TooEarly", PAYER, "finishClose")
    await later(funded.w3, DELAY - 60)
    await funded.refused("TooEarly", PAYER, "finishClose")
    await later(funded.w3, 60)
    await funded.do(STRANGER, "finishClose")
    books = await funded.books()
    assert (books["held"], books["payer"], books["stranger"]) == (0, MINTED, 0)
    await spent(funded)


async def test_a_provider_claims_while_the_channel_closes(funded: Scene) -> None:
    await funded.do(PAYER, "requestClose")
    await later(funded.w3, DELAY - 60)
    await funded.do(STRANGER, "claim", *await funded.voucher(300))
    assert (await funded.books())["closing"] not in (0, 2**40 - 1)
    await later(funded.w3, 60)
    await funded.do(STRANGER, "finishClose")
    books = await funded.books()
    assert (books["held"], books["payer"], books["provider"]) == (0, MINTED - 300, 300)


async def test_a_provider_ends_a_closing_channel_early(funded: Scene) -> None:
    await funded.do(PAYER, "requestClose")
    await funded.do(PROVIDER, "claimAndClose", *await funded.voucher(300))
    books = await funded.books()
    assert (books["held"], books["payer"], books["provider"]) == (0, MINTED - 300, 300)
    await spent(funded)


async def test_a_channel_that_never_was_cannot_be_closed(scene: Scene) -> None:
    await scene.refused("NotOpen", PAYER, "requestClose")
    await scene.refused("NotOpen", PROVIDER, "closeWithRelease", *await scene.release(0))
    await scene.refused("NotClosing", STRANGER, "finishClose")
    await scene.refused("OverDeposit", PROVIDER, "claim", *await scene.voucher(1))
    await scene.do(PAYER, "fund", 1000)


async def test_channels_do_not_touch_one_another(funded: Scene) -> None:
    other = replace(funded, salt=keccak(b"another channel"))
    await other.do(PAYER, "fund", 70)
    await funded.do(PROVIDER, "claimAndClose", *await funded.voucher(1000))
    books = await other.books()
    assert (books["held"], books["state"], books["closing"]) == (70, (70, 0), 0)
    await other.do(PROVIDER, "claim", *await other.voucher(70))


# -- escrow --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A task that the payer pays through escrow, with a stranger as arbiter."""

    w3: AsyncWeb3
    token: AsyncContract
    escrow: AsyncContract
    quote: Quote

    @property
    def raw(self) -> tuple[Any, ...]:
        return tuple(getattr(self.quote, name) for name in Quote.__slots__)

    @property
    def domain(self) -> Domain:
        return Domain("TaskEscrow", "1", CHAIN_ID, self.escrow.address)

    @property
    def id(self) -> bytes:
        return typed_digest(self.domain, self.quote)

    @property
    def signed(self) -> tuple[int, bytes, bytes]:
        r, s, v = split(PROVIDER.sign_quote(self.domain, self.quote))
        return v, r, s

    async def do(self, who: KeySigner, name: str, *arguments: Any) -> None:
        receipt = await send(self.w3, who, self.escrow.functions[name](self.raw, *arguments))
        assert receipt["status"] == 1

    async def refused(self, reason: str, who: KeySigner, name: str, *arguments: Any) -> None:
        function = self.escrow.functions[name](self.raw, *arguments)
        with pytest.raises(ContractLogicError, match=reason):
            await function.call({"from": who.address})

    async def books(self) -> tuple[int, ...]:
        """The job's state, and what escrow, payer and provider hold."""
        state, _ = await self.escrow.functions.jobs(self.id).call()
        held = (self.escrow.address, PAYER.address, PROVIDER.address)
        return state, *[await self.token.functions.balanceOf(one).call() for one in held]


@pytest.fixture
async def job(w3: AsyncWeb3) -> Job:
    token, escrow = await deployed(w3, "TestUSD"), await deployed(w3, "TaskEscrow")
    await send(w3, DEPLOYER, token.functions.mint(PAYER.address, MINTED))
    await send(w3, PAYER, token.functions.approve(escrow.address, 2**256 - 1))
    at = await now(w3)
    parties = (PAYER.address, PROVIDER.address, STRANGER.address, token.address)
    quote = Quote(*parties, 1000, at + 3600, 600, at + 3600, 600, 2500, bytes(32), bytes(32))
    return Job(w3, token, escrow, quote)


async def test_a_job_is_opened_by_signature_and_paid_by_what_both_say(job: Job) -> None:
    until, nonce = job.quote.deliver_by, job.id[:24] + bytes(8)
    given = ReceiveAuthorization(PAYER.address, job.escrow.address, 1000, until, nonce)
    domain = Domain("USD Coin", "1", CHAIN_ID, job.token.address)
    r, s, v = split(PAYER.sign_authorization(domain, given))
    await job.do(STRANGER, "openWithAuthorization", job.signed, until, v, r, s)
    assert await job.books() == (1, 1000, MINTED - 1000, 0)
    r, s, v = split(PAYER.sign_accept(job.domain, Accept(job.id, 900, keccak(b"result"))))
    accepted = (900, keccak(b"result"), v, r, s)
    await job.refused("NotAgreed", STRANGER, "acceptWithSig", *accepted)
    await job.do(PROVIDER, "acceptWithSig", *accepted)
    assert await job.books() == (4, 0, MINTED - 900, 900)
    await job.refused("BadState", PROVIDER, "acceptWithSig", *accepted)


async def test_a_job_on_which_everybody_is_silent_ends_by_time(job: Job) -> None:
    await job.do(PAYER, "open", *job.signed)
    await job.refused("TooEarly", STRANGER, "refundUndelivered")
    await job.do(PROVIDER, "submit", keccak(b"result"))
    await job.do(PAYER, "dispute", keccak(b"reason"))
    await job.refused("TooEarly", SESSION, "expireDispute")
    await later(job.w3, 601)
    await job.do(SESSION, "expireDispute")
    assert await job.books() == (4, 0, MINTED - 250, 250)


async def test_many_jobs_share_a_transaction(job: Job) -> None:
    jobs = [replace(job, quote=replace(job.quote, task_id=keccak(bytes([n])))) for n in range(3)]
    raws = [one.raw for one in jobs]
    opening = job.escrow.functions.openMany(raws, [one.signed for one in jobs])
    assert (await send(job.w3, PAYER, opening))["status"] == 1
    signatures = []
    for one in jobs:
        r, s, v = split(PAYER.sign_accept(one.domain, Accept(one.id, 1000, bytes(32))))
        signatures.append((v, r, s))
    accept = job.escrow.functions.acceptMany(raws, [1000] * 3, [bytes(32)] * 3, signatures)
    assert (await send(job.w3, STRANGER, accept))["status"] == 1
    assert [(await one.books())[0] for one in jobs] == [4] * 3
    assert (await job.books())[1:] == (0, MINTED - 3000, 3000)


# -- JSON-RPC of the embedded chain --------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(node: Node) -> Node:
    if node.kind != "embedded":
        pytest.skip("other nodes have their own manners")
    return node


def said(node: Node, body: object) -> Any:
    return json.loads(node.post(body if isinstance(body, bytes) else json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (3, -32600),
        ([], -32600),
        ({"id": 1}, -32600),
        ({"id": 1, "method": 4}, -32600),
        ({"id": 1, "method": "eth_sendTransaction"}, -32601),
        ({"id": 1, "method": "__class__"}, -32601),
        ({"id": 1, "method": "eth_getBalance"}, -32602),
        ({"id": 1, "method": "eth_chainId", "params": [1]}, -32602),
        ({"id": 1, "method": "eth_chainId", "params": {"a": 1}}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": ["0x12", "latest"]}, -32602),
        ({"id": 1, "method": "eth_getBlockByNumber", "params": ["soon", False]}, -32602),
        ({"id": 1, "method": "eth_getLogs", "params": [{"topics": ["0x1"]}]}, -32602),
        ({"id": 1, "method": "eth_sendRawTransaction", "params": ["0xzz"]}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": ["0x" + "11" * 20, "0xffffff"]}, -32000),
    ],
)
def test_what_cannot_be_answered_has_a_code(ours: Node, body: object, code: int) -> None:
    answer = said(ours, body)
    assert answer["error"]["code"] == code
    assert answer["jsonrpc"] == "2.0"


def test_a_batch_is_answered_in_one(ours: Node) -> None:
    ask = {"jsonrpc": "2.0", "method": "eth_chainId"}
    batch = [{**ask, "id": "a"}, {**ask, "id": 2, "method": "nope"}, ask, 5]
    first, second, third = said(ours, batch)
    assert (first["id"], first["result"]) == ("a", hex(CHAIN_ID))
    assert (second["id"], second["error"]["code"]) == (2, -32601)
    assert (third["id"], third["error"]["code"]) == (None, -32600)
    assert ours.post(json.dumps(ask).encode()) == b""


def test_a_request_has_a_longest_body(ours: Node) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ours.post(b" " * (5 * 2**20))
    assert refused.value.code == 413
    refused.value.close()


def test_a_web_page_cannot_post(ours: Node) -> None:
    request = urllib.request.Request(ours.url, b"{}", {"content-type": "text/plain"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=limit(20))
    assert refused.value.code == 415
    refused.value.close()

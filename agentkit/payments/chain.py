"""Reads and writes an EVM chain over JSON-RPC by web3, which is imported with the first call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agentkit.errors import (
    AgentKitError,
    ConfigError,
    ProtocolBroken,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.keys.messages import checksummed
from agentkit.market.chain import ChainReceipt, Fees, Log, Network
from agentkit.payments import abi
from agentkit.payments.rpc_endpoint import NotOnChain, RpcEndpoint

if TYPE_CHECKING:
    from web3 import AsyncWeb3

T = TypeVar("T")

KNOWN_WORDS = (
    "alreadyknown",  # geth, reth, Erigon; Nethermind writes AlreadyKnown
    "alreadyimported",  # OpenEthereum and nodes built on Substrate, also AlreadyImported
    "knowntransaction",  # Besu, zkSync
    "alreadyexists",
    "alreadyinmempool",  # nodes built on Cosmos
    "alreadyinthemempool",
    "alreadyinthepool",
    "samehash",  # Erigon: existing tx with same hash
    "noncetoolow",
    "oldnonce",  # Nethermind
    "nonceisalreadyused",
    "noncealreadyused",  # Nethermind: OwnNonceAlreadyUsed
)
"""What nodes answer to bytes that they have, or whose nonce is used: never a failure by itself.

Letters only, because the same client writes it with and without spaces.
"""


def is_known(refusal: str) -> bool:
    """Return whether a node refuses bytes because it has them, or others under their nonce."""
    letters = "".join(filter(str.isalpha, refusal.lower()))
    letters = letters.replace("unknown", "")  # an "unknown transaction" is not a known one
    return any(word in letters for word in KNOWN_WORDS)


class Web3Chain:
    """A chain behind one or several JSON-RPC addresses; see `market.chain.ChainClient`.

    The first call to each address checks that its chain, token and contracts are those that are
    configured; ConfigError is raised when they are not.  Where an address does not answer, the next
    one is asked, and stays in use.  That may repeat a `send`, which changes nothing: the bytes are
    the same, and the chain takes them once.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._endpoints = [RpcEndpoint(network, rpc) for rpc in (network.rpc, *network.other_rpcs)]
        self._newest_block = 0

    async def chain_id(self) -> int:
        return int(await self._ask(lambda w3: w3.eth.chain_id))

    async def head(self) -> int:
        return self._seen(int(await self._ask(lambda w3: w3.eth.block_number)))

    async def time(self, block: int) -> int:
        return await self._ask(lambda w3: w3.eth.get_block(block), _time)

    async def balance(self, address: str) -> int:
        account: Any = checksummed(address)
        return int(await self._ask(lambda w3: w3.eth.get_balance(account)))

    async def nonce(self, address: str) -> int:
        account: Any = checksummed(address)
        return int(await self._ask(lambda w3: w3.eth.get_transaction_count(account, "pending")))

    async def nonce_at(self, address: str, block: int | None) -> int:
        account: Any = checksummed(address)
        at: Any = "latest" if block is None else block
        return int(await self._ask(lambda w3: w3.eth.get_transaction_count(account, at)))

    async def fees(self) -> Fees:
        base = await self._ask(lambda w3: w3.eth.get_block("latest"), _base_fee)
        tip = int(await self._ask(lambda w3: w3.eth.max_priority_fee))
        return Fees(max_fee=2 * base + tip, max_tip=tip)

    async def call(self, to: str, data: bytes) -> bytes:
        call: Any = {"to": checksummed(to), "data": data}
        return await self._ask(lambda w3: w3.eth.call(call), bytes)

    async def estimate(self, sender: str, to: str, data: bytes) -> int:
        call: Any = {"from": checksummed(sender), "to": checksummed(to), "data": data}
        return int(await self._ask(lambda w3: w3.eth.estimate_gas(call)))

    async def data_fee(self, raw: bytes) -> int:
        if not self._network.gas_oracle:
            return 0
        data = abi.encode_bytes("getL1Fee(bytes)", raw)
        return abi.number(await self.call(self._network.gas_oracle, data))

    async def send(self, raw: bytes) -> None:
        try:
            await self._ask(lambda w3: w3.eth.send_raw_transaction(raw))
        except SettlementFailed as error:
            if not is_known(str(error)):
                raise

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        """Return what became of a transaction, None while it is not mined."""
        tx_hash: Any = transaction
        try:
            return await self._ask(
                lambda w3: w3.eth.get_transaction_receipt(tx_hash),
                lambda receipt: _receipt(transaction, receipt),
            )
        except NotOnChain:
            return None

    async def data_of(self, transaction: str, *, to: str = "") -> bytes:
        """Return the data of a call that is on the chain, b"" where there is none.

        With `to` only a call of that contract counts, and not one that another passes on.
        """
        tx_hash: Any = transaction
        try:
            called, data = await self._ask(
                lambda w3: w3.eth.get_transaction(tx_hash),
                lambda found: (str(found["to"]).lower(), bytes(found["input"])),
            )
        except NotOnChain:
            return b""
        return data if to.lower() in ("", called) else b""

    async def logs(
        self, address: str, topics: list[bytes | None], first: int, last: int
    ) -> list[Log]:
        """Return a contract's logs in blocks `first` to `last`; a topic of None matches any."""
        log_filter: Any = {
            "address": checksummed(address),
            "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
            "fromBlock": first,
            "toBlock": last,
        }
        return await self._ask(
            lambda w3: w3.eth.get_logs(log_filter), lambda logs: [_log(entry) for entry in logs]
        )

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        for endpoint in self._endpoints:
            await endpoint.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _ask(
        self,
        question: Callable[[AsyncWeb3[Any]], Awaitable[Any]],
        read: Callable[[Any], T] = lambda answer: answer,
    ) -> T:
        """Return what `read` makes of the answer to a question; each endpoint is asked once.

        Raises our errors only: ProtocolBroken for what cannot be read.
        """
        failure: AgentKitError | None = None
        for endpoint in list(self._endpoints):
            try:
                return await endpoint.ask(question, read, at_least=self._newest_block)
            except ConfigError as error:
                failure = failure or error
                self._set_back(endpoint)
            except (StoreUnavailable, ProtocolBroken) as error:
                # It may answer later, so another endpoint that is wrong is not the end.
                failure = error if failure is None or isinstance(failure, ConfigError) else failure
                self._set_back(endpoint)
        assert failure is not None  # there is at least one endpoint
        raise failure

    def _set_back(self, endpoint: RpcEndpoint) -> None:
        """Have an endpoint asked last from now on, and checked anew before that."""
        if len(self._endpoints) > 1 and self._endpoints[0] is endpoint:
            self._endpoints.append(self._endpoints.pop(0))
            endpoint.is_checked = False

    def _seen(self, block: int) -> int:
        """Note the newest block that any endpoint showed, and return it.

        What depends on it was read at that block.  An endpoint that is behind would show a payment
        as not made that another one has shown as made; so it is not asked (`RpcEndpoint.ask`).
        """
        self._newest_block = max(self._newest_block, block)
        return block


def _time(block: Any) -> int:
    return int(block["timestamp"])


def _base_fee(block: Any) -> int:
    return int(block["baseFeePerGas"])


def _data_fee(receipt: Any) -> int:
    """Return in wei what a rollup charged for a transaction's data (OP stack's `l1Fee`)."""
    fee = receipt.get("l1Fee") or 0
    return int(fee, 16) if isinstance(fee, str) else int(fee)


def _receipt(transaction: str, receipt: Any) -> ChainReceipt:
    """Return web3's receipt as ours; raises ProtocolBroken for one of another transaction."""
    if "0x" + bytes(receipt["transactionHash"]).hex() != transaction.lower():
        raise ProtocolBroken(f"asked for {transaction}, the chain answers about another one")
    gas_cost = int(receipt["gasUsed"]) * int(receipt["effectiveGasPrice"])
    return ChainReceipt(
        transaction=transaction,
        block=int(receipt["blockNumber"]),
        succeeded=receipt["status"] == 1,
        cost=gas_cost + _data_fee(receipt),
        logs=tuple(_log(entry) for entry in receipt["logs"]),
    )


def _log(entry: Any) -> Log:
    return Log(
        address=checksummed(entry["address"]),
        topics=tuple(bytes(topic) for topic in entry["topics"]),
        data=bytes(entry["data"]),
        transaction="0x" + bytes(entry["transactionHash"]).hex(),
        block=int(entry["blockNumber"]),
    )

"""The chain over web3, which is imported with the first call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agentkit.errors import ConfigError, ProtocolBroken, SettlementFailed, StoreUnavailable
from agentkit.keys.messages import checksummed
from agentkit.market.chain import ChainReceipt, Fees, Log, Network

if TYPE_CHECKING:
    from web3 import AsyncWeb3

T = TypeVar("T")

TIMEOUT = 30.0

KNOWN = ("already known", "already imported", "nonce too low", "known transaction")
"""What nodes say of bytes they have, or whose nonce is used: never a failure by itself."""


class Web3Chain:
    """A chain behind one JSON-RPC address; see `market.chain.ChainClient`.

    The first call checks that the chain is the one that is configured.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._web3: AsyncWeb3[Any] | None = None
        self._opening = asyncio.Lock()

    async def chain_id(self) -> int:
        return await self._ask(lambda w3: w3.eth.chain_id)

    async def head(self) -> int:
        return int(await self._ask(lambda w3: w3.eth.block_number))

    async def time(self, block: int) -> int:
        found = await self._ask(lambda w3: w3.eth.get_block(block))
        return int(found["timestamp"])

    async def balance(self, address: str) -> int:
        whose: Any = checksummed(address)
        return int(await self._ask(lambda w3: w3.eth.get_balance(whose)))

    async def nonce(self, address: str) -> int:
        whose: Any = checksummed(address)
        return int(await self._ask(lambda w3: w3.eth.get_transaction_count(whose, "pending")))

    async def nonce_at(self, address: str, block: int | None) -> int:
        whose: Any = checksummed(address)
        tag: Any = "latest" if block is None else block
        return int(await self._ask(lambda w3: w3.eth.get_transaction_count(whose, tag)))

    async def fees(self) -> Fees:
        block = await self._ask(lambda w3: w3.eth.get_block("latest"))
        tip = int(await self._ask(lambda w3: w3.eth.max_priority_fee))
        return Fees(max_fee=2 * int(block["baseFeePerGas"]) + tip, max_tip=tip)

    async def call(self, to: str, data: bytes) -> bytes:
        call: Any = {"to": checksummed(to), "data": data}
        return bytes(await self._ask(lambda w3: w3.eth.call(call)))

    async def estimate(self, sender: str, to: str, data: bytes) -> int:
        call: Any = {"from": checksummed(sender), "to": checksummed(to), "data": data}
        return int(await self._ask(lambda w3: w3.eth.estimate_gas(call)))

    async def send(self, raw: bytes) -> None:
        await self._ask(lambda w3: w3.eth.send_raw_transaction(raw), sending=True)

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        from web3.exceptions import TransactionNotFound

        try:
            found = await self._ask(lambda w3: w3.eth.get_transaction_receipt(transaction))  # type: ignore[arg-type]
        except TransactionNotFound:
            return None
        return ChainReceipt(
            transaction=transaction,
            block=int(found["blockNumber"]),
            succeeded=found["status"] == 1,
            cost=int(found["gasUsed"]) * int(found["effectiveGasPrice"]),
            logs=tuple(_log(entry) for entry in found["logs"]),
        )

    async def logs(
        self, address: str, topics: list[bytes | None], first: int, last: int
    ) -> list[Log]:
        wanted: Any = {
            "address": checksummed(address),
            "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
            "fromBlock": first,
            "toBlock": last,
        }
        return [_log(entry) for entry in await self._ask(lambda w3: w3.eth.get_logs(wanted))]

    async def close(self) -> None:
        if self._web3 is not None:
            await self._web3.provider.disconnect()
            self._web3 = None

    # -- inside ----------------------------------------------------------------------------------

    async def _open(self) -> AsyncWeb3[Any]:
        """Connect once, web3's long import outside the event loop; raises ConfigError."""
        async with self._opening:
            if self._web3 is None:
                web3 = await asyncio.to_thread(_connect, self._network.rpc)
                found = await _translated(web3.eth.chain_id, self._network.rpc)
                if found != self._network.chain_id:
                    await web3.provider.disconnect()
                    raise ConfigError(
                        f"{_host(self._network.rpc)} is chain {found}, and {self._network.name} is"
                        f" chain {self._network.chain_id}",
                        hint="check the rpc address of the network in agentkit.toml",
                    )
                self._web3 = web3
            return self._web3

    async def _ask(
        self, question: Callable[[AsyncWeb3[Any]], Awaitable[T]], *, sending: bool = False
    ) -> T:
        web3 = await self._open()
        answer: T = await _translated(question(web3), self._network.rpc, sending=sending)
        return answer


def _connect(rpc: str) -> AsyncWeb3[Any]:
    from aiohttp import ClientTimeout
    from web3 import AsyncHTTPProvider, AsyncWeb3

    arguments = {"timeout": ClientTimeout(total=TIMEOUT)}
    return AsyncWeb3(AsyncHTTPProvider(rpc, request_kwargs=arguments))


async def _translated(answer: Awaitable[T], rpc: str, *, sending: bool = False) -> Any:
    """Await an answer, web3's errors turned into ours."""
    from aiohttp import ClientError
    from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError

    try:
        return await answer
    except TransactionNotFound:
        raise
    except ContractLogicError as reverted:
        raise SettlementFailed(f"the contract refuses: {reverted.message}") from reverted
    except Web3RPCError as refused:
        if sending and any(word in str(refused).lower() for word in KNOWN):
            return None
        raise SettlementFailed(f"the chain refuses: {refused.message}") from refused
    except (ClientError, TimeoutError, OSError) as lost:
        raise StoreUnavailable(
            f"the chain at {_host(rpc)} does not answer", hint="run `agentkit doctor`"
        ) from lost
    except Web3Exception as odd:
        raise ProtocolBroken(f"the chain at {_host(rpc)} answers oddly: {odd}") from odd


def _host(rpc: str) -> str:
    """Return an address without its path and query, in which people keep their keys."""
    parts = urlsplit(rpc)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _log(entry: Any) -> Log:
    return Log(
        address=checksummed(entry["address"]),
        topics=tuple(bytes(topic) for topic in entry["topics"]),
        data=bytes(entry["data"]),
        transaction="0x" + bytes(entry["transactionHash"]).hex(),
        block=int(entry["blockNumber"]),
    )

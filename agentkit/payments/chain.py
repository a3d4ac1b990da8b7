"""The chain over web3, which is imported with the first call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agentkit.errors import ConfigError, ProtocolBroken, SettlementFailed, StoreUnavailable
from agentkit.keys.messages import Domain, checksummed
from agentkit.market.chain import ChainReceipt, Fees, Log, Network
from agentkit.net.proxies import proxy_for
from agentkit.payments import abi
from agentkit.payments.imports import limit_kept

if TYPE_CHECKING:
    from web3 import AsyncWeb3

T = TypeVar("T")

TIMEOUT = 30.0

KNOWN = (
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
"""What nodes say of bytes they have, or whose nonce is used: never a failure by itself.

In letters alone, because the same client writes it with and without spaces.
"""


def is_known(refusal: str) -> bool:
    """Return whether a node refuses bytes because it has them, or something under their nonce."""
    letters = "".join(filter(str.isalpha, refusal.lower())).replace("unknown", "")
    return any(word in letters for word in KNOWN)


class Web3Chain:
    """A chain behind one JSON-RPC address; see `market.chain.ChainClient`.

    The first call checks that the chain is the one that is configured.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._web3: AsyncWeb3[Any] | None = None
        self._opening = asyncio.Lock()

    async def chain_id(self) -> int:
        return int(await self._ask(lambda w3: w3.eth.chain_id))

    async def head(self) -> int:
        return int(await self._ask(lambda w3: w3.eth.block_number))

    async def time(self, block: int) -> int:
        return await self._ask(lambda w3: w3.eth.get_block(block), _time)

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
        asked = abi.encode_bytes("getL1Fee(bytes)", raw)
        return abi.numbers(await self.call(self._network.gas_oracle, asked))[0]

    async def send(self, raw: bytes) -> None:
        try:
            await self._ask(lambda w3: w3.eth.send_raw_transaction(raw))
        except SettlementFailed as error:
            if not is_known(str(error)):
                raise

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        from web3.exceptions import TransactionNotFound

        asked: Any = transaction
        try:
            return await self._ask(
                lambda w3: w3.eth.get_transaction_receipt(asked),
                lambda found: _receipt(transaction, found),
            )
        except TransactionNotFound:
            return None

    async def data_of(self, transaction: str) -> bytes:
        from web3.exceptions import TransactionNotFound

        asked: Any = transaction
        try:
            return await self._ask(
                lambda w3: w3.eth.get_transaction(asked), lambda found: bytes(found["input"])
            )
        except TransactionNotFound:
            return b""

    async def logs(
        self, address: str, topics: list[bytes | None], first: int, last: int
    ) -> list[Log]:
        wanted: Any = {
            "address": checksummed(address),
            "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
            "fromBlock": first,
            "toBlock": last,
        }
        return await self._ask(
            lambda w3: w3.eth.get_logs(wanted), lambda found: [_log(entry) for entry in found]
        )

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
                try:
                    with _translating(self._network.rpc):
                        found = await web3.eth.chain_id
                except BaseException:  # the next question connects anew
                    await web3.provider.disconnect()
                    raise
                if found != self._network.chain_id:
                    await web3.provider.disconnect()
                    raise ConfigError(
                        f"{_host(self._network.rpc)} is chain {found}, and {self._network.name} is"
                        f" chain {self._network.chain_id}",
                        hint="check the rpc address of the network in agentkit.toml",
                    )
                await self._check_contracts(web3)
                self._web3 = web3
            return self._web3

    async def _check_contracts(self, web3: AsyncWeb3[Any]) -> None:
        """See that token and contracts are what signatures will be made for; raises ConfigError.

        Where a network has none of one of them, nothing is signed for it.
        """
        known = self._network
        domains = [("token", known.token, known.token_domain)] if known.token else []
        domains += [("channels", known.channels, known.channels_domain)] if known.channels else []
        domains += [("escrow", known.escrow, known.escrow_domain)] if known.escrow else []

        async def ask(to: str, function: str) -> bytes:
            call: Any = {"to": checksummed(to), "data": abi.encode(function)}
            with _translating(known.rpc):
                return bytes(await web3.eth.call(call))

        try:
            for key, address, domain in domains:
                if await ask(address, "DOMAIN_SEPARATOR()") != domain.separator:
                    raise _not_there(key, address, domain, known)
            if known.token:
                _check_decimals(known, abi.numbers(await ask(known.token, "decimals()")))
        except ConfigError:
            await web3.provider.disconnect()
            raise
        except (SettlementFailed, ProtocolBroken) as error:
            await web3.provider.disconnect()
            raise _not_there(key, address, domain, known) from error

    async def _ask(
        self,
        question: Callable[[AsyncWeb3[Any]], Awaitable[Any]],
        read: Callable[[Any], T] = lambda answer: answer,
    ) -> T:
        """Return what `read` makes of an answer; whatever cannot be read is ProtocolBroken."""
        web3 = await self._open()
        with _translating(self._network.rpc):
            return read(await question(web3))


def _check_decimals(network: Network, decimals: list[int]) -> None:
    currency = network.currency
    if decimals != [currency.decimals]:
        raise ConfigError(
            f"the token {network.token} has {decimals} decimals,"
            f" and {currency.symbol} has {currency.decimals}",
            hint="check `network` and chain.rpc in agentkit.toml",
        )


def _not_there(key: str, address: str, domain: Domain, network: Network) -> ConfigError:
    """Return what is said where a contract is not the one that is configured."""
    hint = "check `network` and chain.rpc" if key == "token" else f"check chain.{key}"
    return ConfigError(
        f"{address} on {network.name} is no contract {domain.name!r}, version {domain.version!r}",
        hint=f"{hint} in agentkit.toml",
    )


def _connect(rpc: str) -> AsyncWeb3[Any]:
    from aiohttp import ClientTimeout

    with limit_kept():
        from web3 import AsyncHTTPProvider, AsyncWeb3

    arguments = {"timeout": ClientTimeout(total=TIMEOUT), "proxy": proxy_for(rpc)}
    return AsyncWeb3(AsyncHTTPProvider(rpc, request_kwargs=arguments))


@contextmanager
def _translating(rpc: str) -> Iterator[None]:
    """Turn web3's errors, and what reading an odd answer raises, into ours."""
    from aiohttp import ClientError
    from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError

    try:
        yield
    except (TransactionNotFound, ProtocolBroken):
        raise
    except ContractLogicError as reverted:
        raise SettlementFailed(f"the contract refuses: {reverted.message}") from reverted
    except Web3RPCError as error:
        raise SettlementFailed(f"the chain refuses: {error.message}") from error
    except (ClientError, TimeoutError, OSError) as error:
        raise StoreUnavailable(
            f"the chain at {_host(rpc)} does not answer", hint="run `agentkit doctor`"
        ) from error
    except (Web3Exception, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProtocolBroken(f"the chain at {_host(rpc)} answers oddly: {error!s:.200}") from error


def _host(rpc: str) -> str:
    """Return an address without its path and query, in which people keep their keys."""
    parts = urlsplit(rpc)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _time(block: Any) -> int:
    return int(block["timestamp"])


def _base_fee(block: Any) -> int:
    return int(block["baseFeePerGas"])


def _data_fee(found: Any) -> int:
    """Return what a rollup charged for the data of a transaction (OP stack's `l1Fee`)."""
    fee = found.get("l1Fee") or 0
    return int(fee, 16) if isinstance(fee, str) else int(fee)


def _receipt(transaction: str, found: Any) -> ChainReceipt:
    if "0x" + bytes(found["transactionHash"]).hex() != transaction.lower():
        raise ProtocolBroken(f"asked for {transaction}, the chain answers about another one")
    return ChainReceipt(
        transaction=transaction,
        block=int(found["blockNumber"]),
        succeeded=found["status"] == 1,
        cost=int(found["gasUsed"]) * int(found["effectiveGasPrice"]) + _data_fee(found),
        logs=tuple(_log(entry) for entry in found["logs"]),
    )


def _log(entry: Any) -> Log:
    return Log(
        address=checksummed(entry["address"]),
        topics=tuple(bytes(topic) for topic in entry["topics"]),
        data=bytes(entry["data"]),
        transaction="0x" + bytes(entry["transactionHash"]).hex(),
        block=int(entry["blockNumber"]),
    )

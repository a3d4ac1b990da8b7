"""Reads and writes an EVM chain over JSON-RPC by web3, which is imported with the first call."""

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
"""Seconds in which a node has to answer."""

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
    """A chain behind one JSON-RPC address; see `market.chain.ChainClient`.

    The first call checks that the chain, its token and contracts are those that are configured;
    it raises ConfigError when they are not.
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
        return abi.numbers(await self.call(self._network.gas_oracle, data))[0]

    async def send(self, raw: bytes) -> None:
        try:
            await self._ask(lambda w3: w3.eth.send_raw_transaction(raw))
        except SettlementFailed as error:
            if not is_known(str(error)):
                raise

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        """Return what became of a transaction, None while it is not mined."""
        from web3.exceptions import TransactionNotFound

        tx_hash: Any = transaction
        try:
            return await self._ask(
                lambda w3: w3.eth.get_transaction_receipt(tx_hash),
                lambda receipt: _receipt(transaction, receipt),
            )
        except TransactionNotFound:
            return None

    async def data_of(self, transaction: str) -> bytes:
        """Return the data of a call that is on the chain, b"" where there is none."""
        from web3.exceptions import TransactionNotFound

        tx_hash: Any = transaction
        try:
            return await self._ask(
                lambda w3: w3.eth.get_transaction(tx_hash), lambda found: bytes(found["input"])
            )
        except TransactionNotFound:
            return b""

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
        if self._web3 is not None:
            await self._web3.provider.disconnect()
            self._web3 = None

    # -- inside ----------------------------------------------------------------------------------

    async def _open(self) -> AsyncWeb3[Any]:
        """Return the connection; the first call makes and checks it.

        web3 takes seconds to import, so that runs outside the event loop.  Raises ConfigError.
        """
        async with self._opening:
            if self._web3 is None:
                web3 = await asyncio.to_thread(_connect, self._network.rpc)
                try:
                    await self._check_chain(web3)
                except BaseException:  # the next call connects anew
                    await web3.provider.disconnect()
                    raise
                self._web3 = web3
            return self._web3

    async def _check_chain(self, web3: AsyncWeb3[Any]) -> None:
        """Raise ConfigError unless the chain, its token and contracts are as configured."""
        with _translating(self._network.rpc):
            chain_id = await web3.eth.chain_id
        if chain_id != self._network.chain_id:
            raise ConfigError(
                f"{_host(self._network.rpc)} is chain {chain_id}, and {self._network.name} is"
                f" chain {self._network.chain_id}",
                hint="check the rpc address of the network in agentkit.toml",
            )
        await self._check_contracts(web3)

    async def _check_contracts(self, web3: AsyncWeb3[Any]) -> None:
        """Raise ConfigError unless token and contracts are what signatures will be made for.

        A signature is valid in one EIP-712 domain; a contract with another domain would refuse
        it, or be another contract.  Contracts that a network does not have are left out.
        """
        network = self._network

        async def ask(to: str, function: str) -> bytes:
            call: Any = {"to": checksummed(to), "data": abi.encode(function)}
            with _translating(network.rpc):
                return bytes(await web3.eth.call(call))

        contracts: list[tuple[str, str, Domain]] = []
        if network.token:
            contracts.append(("token", network.token, network.token_domain))
        if network.channels:
            contracts.append(("channels", network.channels, network.channels_domain))
        if network.escrow:
            contracts.append(("escrow", network.escrow, network.escrow_domain))
        try:
            for key, address, domain in contracts:
                if await ask(address, "DOMAIN_SEPARATOR()") != domain.separator:
                    raise _wrong_contract(key, address, domain=domain, network=network)
            if network.token:
                decimals = abi.numbers(await ask(network.token, "decimals()"))
                _check_decimals(network, decimals)
        except (SettlementFailed, ProtocolBroken) as error:
            raise _wrong_contract(key, address, domain=domain, network=network) from error

    async def _ask(
        self,
        question: Callable[[AsyncWeb3[Any]], Awaitable[Any]],
        read: Callable[[Any], T] = lambda answer: answer,
    ) -> T:
        """Return what `read` makes of the answer to a question.

        Raises our errors only: ProtocolBroken for what cannot be read.
        """
        web3 = await self._open()
        with _translating(self._network.rpc):
            return read(await question(web3))


def _check_decimals(network: Network, decimals: list[int]) -> None:
    """Raise ConfigError unless the token counts in the units of the network's currency."""
    currency = network.currency
    if decimals != [currency.decimals]:
        raise ConfigError(
            f"the token {network.token} has {decimals} decimals,"
            f" and {currency.symbol} has {currency.decimals}",
            hint="check `network` and chain.rpc in agentkit.toml",
        )


def _wrong_contract(key: str, address: str, *, domain: Domain, network: Network) -> ConfigError:
    """Return the error for an address at which another contract is, or none.

    `key` is the setting that names the address.
    """
    hint = "check `network` and chain.rpc" if key == "token" else f"check chain.{key}"
    return ConfigError(
        f"{address} on {network.name} is not the contract {domain.name!r},"
        f" version {domain.version!r}",
        hint=f"{hint} in agentkit.toml",
    )


def _connect(rpc: str) -> AsyncWeb3[Any]:
    """Import web3 and return a client; the connection is opened with the first call."""
    from aiohttp import ClientTimeout

    with limit_kept():
        from web3 import AsyncHTTPProvider, AsyncWeb3

    request_options = {"timeout": ClientTimeout(total=TIMEOUT), "proxy": proxy_for(rpc)}
    return AsyncWeb3(AsyncHTTPProvider(rpc, request_kwargs=request_options))


@contextmanager
def _translating(rpc: str) -> Iterator[None]:
    """Turn the errors of web3, and of reading a malformed answer, into ours.

    A revert or a refusal is SettlementFailed.  No answer is StoreUnavailable: the outcome is
    unknown.  TransactionNotFound passes, because for callers it is an answer.
    """
    from aiohttp import ClientError
    from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError

    try:
        yield
    except (TransactionNotFound, ProtocolBroken):
        raise
    except ContractLogicError as error:
        raise SettlementFailed(f"the contract refuses: {error.message}") from error
    except Web3RPCError as error:
        raise SettlementFailed(f"the chain refuses: {error.message}") from error
    except (ClientError, TimeoutError, OSError) as error:
        raise StoreUnavailable(
            f"the chain at {_host(rpc)} does not answer", hint="run `agentkit doctor`"
        ) from error
    except (Web3Exception, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProtocolBroken(
            f"the answer of the chain at {_host(rpc)} cannot be read: {error!s:.200}"
        ) from error


def _host(rpc: str) -> str:
    """Return an RPC address without path and query, where people keep their API keys."""
    parts = urlsplit(rpc)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


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

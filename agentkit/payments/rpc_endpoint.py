"""One JSON-RPC address of a chain, which is checked before anything is believed of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agentkit.errors import (
    ConfigError,
    ProtocolBroken,
    SettlementFailed,
    StoreUnavailable,
    in_one_line,
)
from agentkit.keys.messages import Domain, checksummed
from agentkit.market.chain import Network
from agentkit.net.proxies import proxy_for
from agentkit.payments import abi
from agentkit.payments.imports import importing_web3

if TYPE_CHECKING:
    from web3 import AsyncWeb3

T = TypeVar("T")

TIMEOUT = 30.0
"""Seconds in which a node has to answer."""


class RpcEndpoint:
    """A node of a network behind one address.

    `is_checked`: its chain, token and contracts are those that are configured.
    """

    def __init__(self, network: Network, rpc: str) -> None:
        """Make the endpoint; the first question connects and checks it."""
        self._network = network
        self._rpc = rpc
        self._web3: AsyncWeb3[Any] | None = None
        self._opening = asyncio.Lock()
        self.is_checked = False

    async def ask(
        self,
        question: Callable[[AsyncWeb3[Any]], Awaitable[Any]],
        read: Callable[[Any], T],
        *,
        at_least: int,
    ) -> T:
        """Return what `read` makes of the answer to a question.

        Before the first one the node must know block `at_least`.  Raises our errors only:
        StoreUnavailable for no answer and for a node that is behind, ProtocolBroken for what cannot
        be read, and ConfigError for another chain than is configured.
        """
        web3 = await self._open(at_least)
        with translating(self._rpc):
            return read(await question(web3))

    async def close(self) -> None:
        """Close the connection; the next question opens a new one."""
        self.is_checked = False
        if self._web3 is not None:
            await self._web3.provider.disconnect()
            self._web3 = None

    # -- inside ----------------------------------------------------------------------------------

    async def _open(self, at_least: int) -> AsyncWeb3[Any]:
        """Return the connection, once its node was checked; raises as `ask`.

        web3 takes seconds to import, so that runs outside the event loop.
        """
        from agentkit.payments.rpc_answers import bounded_session  # aiohttp is slow to import

        async with self._opening:
            if self._web3 is None:
                retries = not self._network.other_rpcs
                self._web3 = await asyncio.to_thread(_connect, self._rpc, retries=retries)
                await self._web3.provider.cache_async_session(bounded_session())
            if not self.is_checked:
                try:
                    await self._check_chain(self._web3, at_least)
                except BaseException:  # the next call connects anew
                    await self.close()
                    raise
                self.is_checked = True
            return self._web3

    async def _check_chain(self, web3: AsyncWeb3[Any], at_least: int) -> None:
        """Raise ConfigError unless the chain, its token and contracts are as configured.

        Raises StoreUnavailable for a node that does not know block `at_least` yet.
        """
        with translating(self._rpc):
            chain_id = await web3.eth.chain_id
        if chain_id != self._network.chain_id:
            raise ConfigError(
                f"{_host(self._rpc)} is chain {chain_id}, and {self._network.name} is"
                f" chain {self._network.chain_id}",
                hint="check the rpc address of the network in agentkit.toml",
            )
        await self._check_contracts(web3)
        if at_least:
            with translating(self._rpc):
                head = int(await web3.eth.block_number)
            if head < at_least:
                raise StoreUnavailable(
                    f"the chain at {_host(self._rpc)} is behind: it is at block {head}, and another"
                    f" address of {self._network.name} has shown block {at_least}",
                    hint="run the same command again in a minute",
                )

    async def _check_contracts(self, web3: AsyncWeb3[Any]) -> None:
        """Raise ConfigError unless token and contracts are what signatures will be made for.

        A signature is valid in one EIP-712 domain; a contract with another domain would refuse
        it, or be another contract.  Contracts that a network does not have are left out.  An answer
        that cannot be read says nothing about them, and raises ProtocolBroken.
        """
        network = self._network

        async def ask(to: str, function: str) -> bytes:
            call: Any = {"to": checksummed(to), "data": abi.encode(function)}
            with translating(self._rpc):
                return bytes(await web3.eth.call(call))

        contracts: list[tuple[str, str, Domain]] = []
        if network.token:
            contracts.append(("token", network.token, network.token_domain))
        if network.channels:
            contracts.append(("channels", network.channels, network.channels_domain))
        if network.escrow:
            contracts.append(("escrow", network.escrow, network.escrow_domain))
        for key, address, domain in contracts:
            try:
                separator = await ask(address, "DOMAIN_SEPARATOR()")
                decimals = await ask(address, "decimals()") if key == "token" else b""
            except SettlementFailed as error:  # there is no such function
                raise _wrong_contract(key, address, domain=domain, network=network) from error
            if separator != domain.separator:
                raise _wrong_contract(key, address, domain=domain, network=network)
            if key == "token":
                _check_decimals(network, decimals)


def _check_decimals(network: Network, answer: bytes) -> None:
    """Raise ConfigError unless the token counts in the units of the network's currency."""
    currency = network.currency
    if answer != currency.decimals.to_bytes(32):
        raise ConfigError(
            f"the token {network.token} has {int.from_bytes(answer[:32])} decimals,"
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


def _connect(rpc: str, *, retries: bool = True) -> AsyncWeb3[Any]:
    """Import web3 and return a client; the connection is opened with the first call.

    Without `retries` a question is sent once: another endpoint is asked sooner.
    """
    from aiohttp import ClientTimeout

    with importing_web3():
        from web3 import AsyncHTTPProvider, AsyncWeb3

    request_options = {"timeout": ClientTimeout(total=TIMEOUT), "proxy": proxy_for(rpc)}
    if retries:
        return AsyncWeb3(AsyncHTTPProvider(rpc, request_kwargs=request_options))
    return AsyncWeb3(
        AsyncHTTPProvider(rpc, request_kwargs=request_options, exception_retry_configuration=None)
    )


class NotOnChain(Exception):
    """The chain does not know a transaction.

    Callers need not import web3 to catch this: only `_connect` does, off the event loop.
    """


@contextmanager
def translating(rpc: str) -> Iterator[None]:
    """Turn the errors of web3, and of reading a malformed answer, into ours.

    A revert or a refusal is SettlementFailed.  No answer is StoreUnavailable: the outcome is
    unknown.  A transaction that the chain does not know is NotOnChain: for callers an answer.
    """
    from aiohttp import ClientError
    from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError

    try:
        yield
    except TransactionNotFound as error:
        raise NotOnChain from error
    except ProtocolBroken:
        raise
    except ContractLogicError as error:
        said = in_one_line(str(error.message))
        raise SettlementFailed(f"the contract refuses: {said}") from error
    except Web3RPCError as error:
        said = in_one_line(str(error.message))
        raise SettlementFailed(f"the chain refuses: {said}") from error
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

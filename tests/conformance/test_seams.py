"""Every implementation of a seam, fakes included, against the published suites."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from support.byte_flip_proxy import Flipping
from support.toy_market import WALLET

from agentkit.artifacts import Artifact, Json, Text
from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Result
from agentkit.market.seams import ArtifactStore
from agentkit.market.task import Load, Task
from agentkit.memory.artifacts.encryption import ArtifactCipher
from agentkit.memory.artifacts.ipfs import Ipfs
from agentkit.memory.artifacts.local import LocalStore
from agentkit.memory.artifacts.onchain import Onchain
from agentkit.memory.artifacts.stores import Stores
from agentkit.memory.arweave.gateways import Gateways
from agentkit.payments.budget import Budget
from agentkit.runtime.verifiers import FunctionVerifier, SchemaVerifier
from agentkit.testing import (
    Case,
    Desk,
    FakeProvider,
    ProviderConformance,
    RailConformance,
    StoreConformance,
    ToyRail,
    VerifierConformance,
)
from agentkit.testing.fakes import USDC

MODEL = "smollm2-135m"
SIGNER = KeySigner(bytes(range(1, 33)))
COVER = ArtifactCipher(SIGNER.derive("test"))


class Both(ProviderConformance, RailConformance):
    """A provider and the rail that pays it, together."""

    provider: str
    rail: str

    @pytest.fixture
    async def desk(self, open_agent: Any) -> AsyncIterator[Desk]:
        async with open_agent() as agent:
            provider, rail = (
                agent._parts.resources.providers[self.provider],
                agent._parts.resources.rails[self.rail],
            )
            yield Desk(provider, rail, agent._journal, agent._parts.resources.ledger, MODEL)


class TestNative(Both):
    provider, rail = "native", "channel"


class TestNativeByEscrow(RailConformance):
    @pytest.fixture
    async def desk(self, open_agent: Any) -> AsyncIterator[Desk]:
        async with open_agent() as agent:
            provider, rail = (
                agent._parts.resources.providers["native"],
                agent._parts.resources.rails["escrow"],
            )
            yield Desk(provider, rail, agent._journal, agent._parts.resources.ledger, MODEL)


class TestHyperbolic(Both):
    provider, rail = "hyperbolic", "prepaid"


class TestGaia(Both):
    provider, rail = "gaia", "elsewhere"


class TestFakes(ProviderConformance, RailConformance):
    @pytest.fixture
    async def desk(self, tmp_path: Path) -> AsyncIterator[Desk]:
        journal = await Journal.open(tmp_path / "home", WALLET)
        provider = FakeProvider("fake", tmp_path / "fake")
        yield Desk(provider, ToyRail(), journal, Budget(Allowance()), MODEL)
        await journal.close()

    async def test_what_it_cannot_do_is_refused_with_a_reason(self, desk: Desk) -> None:
        """The fake does everything."""


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ArtifactStore:
        return LocalStore(tmp_path / "artifacts")


class Remote(StoreConformance):
    """A store behind HTTP, with a front before it that can flip a byte."""

    @pytest.fixture
    async def front(self, real: str) -> AsyncIterator[tuple[Flipping, str]]:
        front = Flipping(real.rstrip("/"))
        async with TestServer(front.app) as server:
            yield front, str(server.make_url("")).rstrip("/")

    @pytest.fixture
    def damage(self, front: tuple[Flipping, str]) -> Callable[[Artifact], None]:
        return lambda put: setattr(front[0], "at", 3)


class TestArweaveStore(Remote):
    @pytest.fixture
    async def real(self, tmp_path: Path) -> AsyncIterator[str]:
        gateway = Gateway.open(tmp_path / "gateway")
        async with TestServer(gateway_app(gateway)) as server:
            yield str(server.make_url(""))
        gateway.close()

    @pytest.fixture
    async def store(self, front: tuple[Flipping, str]) -> AsyncIterator[ArtifactStore]:
        async with Gateways([front[1]], rounds=1) as gateways:
            yield Onchain(gateways, SIGNER, COVER, gateways.post_item)


class TestIpfsStore(Remote):
    @pytest.fixture
    def real(self, kubo_rpc: str) -> str:
        return kubo_rpc

    @pytest.fixture
    async def store(self, front: tuple[Flipping, str]) -> AsyncIterator[ArtifactStore]:
        ipfs = Ipfs(front[1], COVER, rounds=1)
        yield ipfs
        await ipfs.close()


class TestStores(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ArtifactStore:
        return Stores(LocalStore(tmp_path / "artifacts"))


TASK = Task("infer", {"prompt": "how many?"}, Load(expected={}, most={}))


def delivered(*outputs: Json | Text) -> Result:
    return Result(outputs, {}, USDC.zero())


class TestSchemaVerifier(VerifierConformance):
    @pytest.fixture
    def case(self) -> Case:
        verifier = SchemaVerifier({"type": "integer"})
        return Case(verifier, TASK, delivered(Json.dump(7)), delivered(Json.dump("seven")))


class TestFunctionVerifier(VerifierConformance):
    @pytest.fixture
    def case(self) -> Case:
        verifier = FunctionVerifier(lambda text: "seven" in text.text)
        return Case(verifier, TASK, delivered(Text.of(b"seven")), delivered(Text.of(b"eight")))

"""Every implementation of a seam, fakes included, against the published suites."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import WALLET

from agentkit.artifacts import Json, Text
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Result
from agentkit.market.seams import ArtifactStore
from agentkit.market.task import Load, Task
from agentkit.memory.local import LocalStore
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


class Both(ProviderConformance, RailConformance):
    """A provider and the rail that pays it, together."""

    provider: str
    rail: str

    @pytest.fixture
    async def desk(self, open_agent: Any) -> AsyncIterator[Desk]:
        async with open_agent() as agent:
            provider, rail = agent._providers[self.provider], agent._rails[self.rail]
            yield Desk(provider, rail, agent._journal, agent._means.ledger, MODEL)


class TestNative(Both):
    provider, rail = "native", "channel"


class TestNativeByEscrow(RailConformance):
    @pytest.fixture
    async def desk(self, open_agent: Any) -> AsyncIterator[Desk]:
        async with open_agent() as agent:
            provider, rail = agent._providers["native"], agent._rails["escrow"]
            yield Desk(provider, rail, agent._journal, agent._means.ledger, MODEL)


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

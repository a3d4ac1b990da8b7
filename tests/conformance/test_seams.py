"""Every implementation of a seam, fakes included, against the published suites."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import WALLET

from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.seams import ArtifactStore
from agentkit.memory.local import LocalStore
from agentkit.payments.budget import Budget
from agentkit.testing import (
    Desk,
    FakeProvider,
    ProviderConformance,
    RailConformance,
    StoreConformance,
    ToyRail,
)

MODEL = "smollm2-135m"


class Both(ProviderConformance, RailConformance):
    """A provider and the rail that pays it, together."""

    provider: str

    @pytest.fixture
    async def desk(self, open_agent: Any) -> AsyncIterator[Desk]:
        async with open_agent() as agent:
            provider = agent._providers[self.provider]
            rail = {"native": "channel", "hyperbolic": "prepaid", "gaia": "elsewhere"}[
                self.provider
            ]
            yield Desk(provider, agent._rails[rail], agent._journal, agent._means.ledger, MODEL)


class TestNative(Both):
    provider = "native"


class TestHyperbolic(Both):
    provider = "hyperbolic"


class TestGaia(Both):
    provider = "gaia"


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

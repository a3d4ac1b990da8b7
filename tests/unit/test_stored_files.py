"""Files on disk beside the state file: a newer version's is refused by name and left alone."""

import json
from pathlib import Path

import pytest
from support.toy_market import toy

from agentkit.embedded import discovery
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.errors import ConfigError, PlanError, StateTooNew, StoreUnavailable
from agentkit.graph.builder import JobGraph
from agentkit.keys.signer import KeySigner
from agentkit.market import plan as plans
from agentkit.market.plan import Plan
from agentkit.payments import receipts
from agentkit.payments.receipts import Bundle


async def saved_plan(folder: Path) -> Path:
    async with toy(folder) as market:
        graph = JobGraph("g")
        graph.infer("hello", model="m", prompt="hello")
        plan = await market.plan(graph)
    plan.save(folder / "plan.json")
    assert Plan.load(folder / "plan.json") == plan
    return folder / "plan.json"


async def test_a_plan_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    path = await saved_plan(tmp_path)
    document = json.loads(path.read_text())
    document["version"] = plans.VERSION + 1
    document["plan"]["a field of tomorrow"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match=f"newer version.*{path}.*version {plans.VERSION + 1}"):
        Plan.load(path)


async def test_a_plan_that_does_not_say_its_version_is_read(tmp_path: Path) -> None:
    path = await saved_plan(tmp_path)
    document = json.loads(path.read_text())
    del document["version"]
    path.write_text(json.dumps(document))
    assert Plan.load(path).graph.name == "g"


def saved_bundle(folder: Path) -> Path:
    bundle = Bundle(chain_id=1, channels_contract="", token="", payer="", receipts=(), channels=())
    bundle.save(folder / "bundle.json")
    assert Bundle.load(folder / "bundle.json") == bundle
    return folder / "bundle.json"


def test_a_bundle_says_its_version_and_a_newer_one_is_refused_by_name(tmp_path: Path) -> None:
    path = saved_bundle(tmp_path)
    document = json.loads(path.read_text())
    assert document["version"] == receipts.VERSION  # a later version has another default
    path.write_text(json.dumps(document | {"version": receipts.VERSION + 1, "more": 1}))
    with pytest.raises(ConfigError, match=f"newer version.*{path}.*{receipts.VERSION + 1}"):
        Bundle.load(path)
    del document["version"]
    path.write_text(json.dumps(document))
    assert Bundle.load(path).version == 1
    path.write_text("[]")
    with pytest.raises(ConfigError, match="not a valid bundle"):
        Bundle.load(path)


def test_a_newer_embedded_network_is_neither_started_nor_touched(tmp_path: Path) -> None:
    (tmp_path / discovery.VERSION_FILE).write_text(f"{discovery.VERSION + 1}\n")
    (tmp_path / "chain.db").write_bytes(b"what a newer version keeps")
    with pytest.raises(StateTooNew, match=f"{tmp_path}.*version {discovery.VERSION + 1}") as raised:
        discovery.ensure(tmp_path)
    assert "agentkit network reset" in raised.value.hint
    assert (tmp_path / "chain.db").read_bytes() == b"what a newer version keeps"
    assert not (tmp_path / discovery.LOG).exists()


def test_a_chain_with_the_contracts_of_another_version_says_so(tmp_path: Path) -> None:
    """They would refuse every voucher of this one, with nothing that explains it."""
    key = b"\x07" * 32
    rich = {KeySigner(key).address: 10**20}
    chain = Chain.open(tmp_path / "chain.db", rich=rich)
    deployed = deploy(chain, key, {})
    assert deploy(chain, key, {}) == deployed
    chain.seal([], {"code of channels": "00" * 32})
    with pytest.raises(StoreUnavailable, match="AgentChannels of another version") as raised:
        deploy(chain, key, {})
    assert "agentkit network reset" in raised.value.hint
    chain.close()

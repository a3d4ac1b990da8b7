"""The head anchor: what is hidden is missed, and of two machines with one key one goes on."""

from __future__ import annotations

import pytest

from agentkit.config import ChainSettings
from agentkit.errors import ConfigError
from agentkit.payments.anchor import anchor_contract
from agentkit.payments.networks import real_network


def test_a_network_without_the_contract_is_a_mistake_of_the_settings() -> None:
    chain = ChainSettings(rpc="http://127.0.0.1:1", channels="0x" + "11" * 20)
    with pytest.raises(ConfigError, match=r"chain\.anchor is not for base") as raised:
        anchor_contract(real_network("base", chain))
    assert raised.value.hint.startswith("set chain.anchor")

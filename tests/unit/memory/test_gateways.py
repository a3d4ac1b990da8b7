"""The client against the embedded gateway over loopback, with a front that fails and lies."""

import pytest

from agentkit.embedded.gateway import Gateway
from agentkit.errors import ConfigError
from agentkit.memory.arweave.gateways import Gateways


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gateway(tmp_path, clock):
    gateway = Gateway.open(tmp_path, clock=clock)
    yield gateway
    gateway.close()


@pytest.mark.parametrize("urls", [[], ["ftp://x"], ["gateway"], ["http://"], ["file:///x"]])
def test_what_is_not_a_gateway_is_refused(urls):
    with pytest.raises(ConfigError):
        Gateways(urls)

"""The client against the embedded gateway over loopback, with a front that fails and lies."""

import pytest

from agentkit.errors import ConfigError
from agentkit.memory.arweave.gateways import Gateways


@pytest.mark.parametrize("urls", [[], ["ftp://x"], ["gateway"], ["http://"], ["file:///x"]])
def test_what_is_not_a_gateway_is_refused(urls):
    with pytest.raises(ConfigError):
        Gateways(urls)

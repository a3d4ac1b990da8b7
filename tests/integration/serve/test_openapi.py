"""What a node says of its routes, and whatever anybody makes of it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from agentkit.embedded import discovery


@pytest.fixture(scope="module")
def description(network: discovery.NetworkFile) -> schemathesis.BaseSchema:
    """The description of a node, as a node serves it."""
    return schemathesis.openapi.from_url(f"{network.nodes['thrifty']}/openapi.json")


def send_what_fits_and_what_does_not(
    description: schemathesis.BaseSchema, network: discovery.NetworkFile, examples: int
) -> int:
    """Send requests made from a description, in it and out of it, and return how many."""
    sent = 0
    url = network.nodes["thrifty"]
    for found in description.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            if (
                mode is GenerationMode.NEGATIVE
                and not operation.body
                and not operation.path_parameters
            ):
                continue

            @settings(
                max_examples=examples,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                nonlocal sent
                response = case.call(base_url=url, timeout=20)
                sent += 1
                assert response.status_code < 500, response.text
                if response.status_code >= 400:
                    assert response.json()["error"]["message"]

            check()
    return sent


def test_no_request_made_from_the_description_makes_a_node_fail(
    description: schemathesis.BaseSchema, network: discovery.NetworkFile
) -> None:
    assert send_what_fits_and_what_does_not(description, network, examples=6) > 80


@pytest.mark.slow
def test_many_requests_made_from_the_description_make_no_node_fail(
    description: schemathesis.BaseSchema, network: discovery.NetworkFile
) -> None:
    assert send_what_fits_and_what_does_not(description, network, examples=60) > 700

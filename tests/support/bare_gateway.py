"""A gateway without a server around it, its clock, and what it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.embedded.gateway import Gateway
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import Item, make_item
from support.gateway_fixtures import Clock

SIGNER = KeySigner(bytes(range(1, 33)))
FIND = """query (
  $tags: [TagFilter!], $owners: [String!], $first: Int, $after: String, $sort: SortOrder,
  $bundledIn: [ID!], $block: BlockFilter, $ids: [ID!], $recipients: [String!]
) {
  transactions(tags: $tags, owners: $owners, first: $first, after: $after, sort: $sort,
               bundledIn: $bundledIn, block: $block, ids: $ids, recipients: $recipients) {
    pageInfo { hasNextPage }
    edges { cursor node {
      id anchor signature recipient owner { address key } fee { winston ar } quantity { winston }
      data { size type } tags { name value } block { id timestamp height previous } bundledIn { id }
    } }
  }
}"""
LIST = (
    "query($i: [ID!]) { transactions(ids: $i, first: 100, sort: HEIGHT_ASC) {"
    " edges { node { id tags { name value } block { height } } } } }"
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(tmp_path: Path, clock: Clock) -> Iterator[Gateway]:
    gateway = Gateway.open(tmp_path, clock=clock)
    yield gateway
    gateway.close()


@pytest.fixture
def weave(gateway: Gateway) -> Gateway:
    """The gateway, where what matters is what it holds."""
    return gateway


@pytest.fixture
def items(weave: Gateway) -> list[Item]:
    """Four items that the gateway has been sent."""
    made = [make_item(SIGNER, b"item %d" % n, [("N", str(n))]) for n in range(4)]
    for item in made:
        weave.post_item(item.raw)
    return made


def listed(weave: Gateway, *names: str) -> list[dict[str, Any]]:
    answer = weave.query(LIST, {"i": list(names) or None})
    return [edge["node"] for edge in answer["data"]["transactions"]["edges"]]


def names(weave: Gateway) -> list[str]:
    return [node["id"] for node in listed(weave)]

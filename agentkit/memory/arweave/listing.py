"""What gateways say they hold, page by page: one GraphQL query and its answer.

Everything here is a claim.  A page is read strictly, and what it says of an item must fit the
item's own id and owner; only the data shows whether its tags are true.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from agentkit.errors import StateCorrupt
from agentkit.memory.arweave.base64url import name_of, unb64url
from agentkit.memory.arweave.tags import MAX_TAGS, Tags

PAGE = 100
MAX_PAGE_BYTES = 4 * 1024 * 1024

_FIND = """
query ($owners: [String!], $tags: [TagFilter!], $ids: [ID!], $after: String) {
  transactions(
    owners: $owners, tags: $tags, ids: $ids, first: 100, after: $after, sort: HEIGHT_ASC
  ) {
    pageInfo { hasNextPage }
    edges {
      cursor
      node {
        id anchor signature recipient
        owner { key }
        tags { name value }
        block { height }
        bundledIn { id }
      }
    }
  }
}
"""

_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
_Short = Annotated[str, StringConstraints(max_length=1024)]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one gateway says of an item; texts are base64url."""

    owner: str
    signature: str
    tags: Tags
    anchor: str
    target: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a page; `height` is None until a block holds it.

    `bundle` is the id of the bundle that the gateway took it out of, empty for a transaction.
    """

    id: str
    height: int | None
    claim: Claim
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing; `cursor` leads to the next and is empty on the last; `size` in bytes."""

    entries: tuple[Listed, ...]
    cursor: str
    size: int


def find_query(owner: str, tags: Collection[tuple[str, str]], after: str) -> bytes:
    """Return the request for what `owner` posted under `tags`; of anybody if there is none.

    Tags of one name are alternatives.
    """
    wanted = [{"name": name, "values": values} for name, values in _alternatives(tags).items()]
    who = {"owners": [owner]} if owner else {}
    place = {"after": after} if after else {}
    return _request({**who, "tags": wanted, **place})


def ids_query(names: Collection[str]) -> bytes:
    """Return the request for entries by id, a page of them at most."""
    return _request({"ids": list(names)})


def read_page(answer: bytes) -> Page:
    """Read an answer.

    Raises StateCorrupt, with the gateway's own words if it gives any, and where a listing breaks
    off, so that other gateways are asked and nobody takes a part of it for the whole.
    """
    try:
        listing = _Answer.model_validate_json(answer)
    except ValidationError as wrong:
        raise StateCorrupt("its listing is not one of Arweave's GraphQL") from wrong
    if listing.data is None:
        said = "; ".join(error.message for error in listing.errors)
        raise StateCorrupt(f"its listing is an error: {said[:160]}")
    connection = listing.data.transactions
    entries = tuple(_listed(edge.node) for edge in connection.edges)
    if not connection.page_info.more:
        return Page(entries, "", len(answer))
    if not connection.edges:  # its end is not the end of the list, and nothing leads on from here
        raise StateCorrupt("its listing breaks off: an empty page says that more follow")
    return Page(entries, connection.edges[-1].cursor, len(answer))


def check(entry: Listed, owner: str, tags: Collection[tuple[str, str]]) -> None:
    """Check that an entry is what was asked for, as far as can be told without its data.

    No `owner` is anybody.  Raises StateCorrupt.
    """
    if name_of(unb64url(entry.claim.signature)) != entry.id:
        raise StateCorrupt(f"it lists {entry.id} with the signature of another item")
    if owner and name_of(unb64url(entry.claim.owner)) != owner:
        raise StateCorrupt(f"it lists {entry.id}, which {owner} does not own")
    has = set(entry.claim.tags)
    wanted = _alternatives(tags).items()
    if not all(any((name, value) in has for value in values) for name, values in wanted):
        raise StateCorrupt(f"it lists {entry.id}, which does not have the tags asked for")


def _alternatives(tags: Collection[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the values that each name may have."""
    wanted: dict[str, list[str]] = {}
    for name, value in tags:
        wanted.setdefault(name, []).append(value)
    return wanted


class _Tag(BaseModel):
    name: str
    value: str


class _Owner(BaseModel):
    key: _Short


class _Block(BaseModel):
    height: Annotated[int, Field(ge=0, lt=2**53)]


class _Bundle(BaseModel):
    id: _Id


class _Node(BaseModel):
    id: _Id
    anchor: _Short | None = None
    signature: _Short | None = None
    recipient: _Short | None = None
    owner: _Owner
    tags: Annotated[list[_Tag], Field(max_length=MAX_TAGS)]
    block: _Block | None = None
    bundle: _Bundle | None = Field(None, alias="bundledIn")


class _Edge(BaseModel):
    cursor: _Short
    node: _Node


class _PageInfo(BaseModel):
    more: bool = Field(alias="hasNextPage")


class _Connection(BaseModel):
    page_info: _PageInfo = Field(alias="pageInfo")
    edges: Annotated[list[_Edge], Field(max_length=PAGE)]


class _Data(BaseModel):
    transactions: _Connection


class _Error(BaseModel):
    message: str = ""


class _Answer(BaseModel):
    data: _Data | None = None
    errors: list[_Error] = []


def _listed(node: _Node) -> Listed:
    """Return an entry of a page; nothing in it is proven yet."""
    claim = Claim(
        owner=node.owner.key,
        signature=node.signature or "",
        tags=tuple((tag.name, tag.value) for tag in node.tags),
        anchor=node.anchor or "",
        target=node.recipient or "",
    )
    height = node.block.height if node.block else None
    return Listed(node.id, height, claim, node.bundle.id if node.bundle else "")


def _request(variables: dict[str, object]) -> bytes:
    return json.dumps({"query": _FIND, "variables": variables}).encode()

"""The GraphQL query by which gateways list items, and its answer, page by page.

What a page says is only a claim.  It is parsed strictly, and an entry must fit its own id and
owner.  Whether its tags are true shows only when the data is fetched and the signature verified.
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
    """The fields of an item as one gateway lists them; texts are base64url."""

    owner: str
    signature: str
    tags: Tags
    anchor: str
    target: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a page; `height` is None until the item is in a block.

    `bundle` is the id of the bundle that the gateway found the item in, "" for a transaction.
    """

    id: str
    height: int | None
    claim: Claim
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing of `size` bytes; `cursor` asks for the next page, "" on the last one."""

    entries: tuple[Listed, ...]
    cursor: str
    size: int


def find_query(owner: str, tags: Collection[tuple[str, str]], after: str) -> bytes:
    """Return the query for items of `owner` with these tags, from the cursor `after` on.

    Several tags of one name are alternatives.  The owner "" stands for anybody.
    """
    filters = [{"name": name, "values": values} for name, values in _values_by_name(tags).items()]
    variables: dict[str, object] = {"tags": filters}
    if owner:
        variables["owners"] = [owner]
    if after:
        variables["after"] = after
    return _request(variables)


def ids_query(names: Collection[str]) -> bytes:
    """Return the query for items by id; at most PAGE ids fit in one."""
    return _request({"ids": list(names)})


def read_page(answer: bytes) -> Page:
    """Parse a gateway's answer to a query; raises StateCorrupt.

    A GraphQL error is quoted.  An empty page that says that more follow is refused too: the rest
    of the listing cannot be asked for, and a part of it must not be taken for the whole.
    """
    try:
        listing = _Answer.model_validate_json(answer)
    except ValidationError as error:
        raise StateCorrupt("its listing is not one of Arweave's GraphQL") from error
    if listing.data is None:
        messages = "; ".join(error.message for error in listing.errors)
        raise StateCorrupt(f"its listing is an error: {messages[:160]}")

    connection = listing.data.transactions
    entries = tuple(_listed(edge.node) for edge in connection.edges)
    cursor = ""
    if connection.page_info.more:
        if not connection.edges:
            raise StateCorrupt("its listing breaks off: an empty page says that more follow")
        cursor = connection.edges[-1].cursor
    return Page(entries=entries, cursor=cursor, size=len(answer))


def check_entry(entry: Listed, owner: str, tags: Collection[tuple[str, str]]) -> None:
    """Check that an entry answers the query, as far as that shows without the item's data.

    The owner "" stands for anybody.  Raises StateCorrupt.
    """
    # An id is the hash of a signature, so an entry with another signature is false.
    if name_of(unb64url(entry.claim.signature)) != entry.id:
        raise StateCorrupt(f"it lists {entry.id} with the signature of another item")
    if owner and name_of(unb64url(entry.claim.owner)) != owner:
        raise StateCorrupt(f"it lists {entry.id}, which {owner} does not own")
    entry_tags = set(entry.claim.tags)
    for name, values in _values_by_name(tags).items():
        if not any((name, value) in entry_tags for value in values):
            raise StateCorrupt(f"it lists {entry.id}, which does not have the tags asked for")


def _values_by_name(tags: Collection[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the alternative values of each tag's name."""
    values: dict[str, list[str]] = {}
    for name, value in tags:
        values.setdefault(name, []).append(value)
    return values


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
    """Return an entry of a page; nothing in it is verified yet."""
    claim = Claim(
        owner=node.owner.key,
        signature=node.signature or "",
        tags=tuple((tag.name, tag.value) for tag in node.tags),
        anchor=node.anchor or "",
        target=node.recipient or "",
    )
    return Listed(
        id=node.id,
        height=node.block.height if node.block else None,
        claim=claim,
        bundle=node.bundle.id if node.bundle else "",
    )


def _request(variables: dict[str, object]) -> bytes:
    return json.dumps({"query": _FIND, "variables": variables}).encode()

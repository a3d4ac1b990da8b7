"""GraphQL as Arweave gateways answer it: transactions and data items alike.

Types, arguments and orders are those of the public schema, so a query that runs here is valid
there.  graphql-core is loaded at the first query; documents are parsed and validated once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from agentkit.embedded.gateway.blocks import Blocks
from agentkit.embedded.gateway.entries import EntryIndex, IndexEntry
from agentkit.embedded.gateway.faults import EVERY, Bench
from agentkit.embedded.gateway.rejected import Rejected
from agentkit.embedded.gateway.search import Search, TagTest
from agentkit.errors import StateCorrupt
from agentkit.memory.arweave.base64url import b64url, unb64url

if TYPE_CHECKING:
    from graphql import DocumentNode, GraphQLSchema

MAX_PAGE = 100
MAX_TESTS = 20
_MAX_TOKENS = 1_000
_WINSTON_DIGITS = 12

_SCHEMA = """
type Query {
  transaction(id: ID!): Transaction
  transactions(
    ids: [ID!]
    owners: [String!]
    recipients: [String!]
    tags: [TagFilter!]
    bundledIn: [ID!]
    block: BlockFilter
    first: Int = 10
    after: String
    sort: SortOrder = HEIGHT_DESC
  ): TransactionConnection!
}
enum SortOrder { HEIGHT_ASC HEIGHT_DESC }
enum TagOperator { EQ NEQ }
input TagFilter { name: String!, values: [String!]!, op: TagOperator = EQ }
input BlockFilter { min: Int, max: Int }
type TransactionConnection { pageInfo: PageInfo!, edges: [TransactionEdge!]! }
type TransactionEdge { cursor: String!, node: Transaction! }
type PageInfo { hasNextPage: Boolean! }
type Transaction {
  id: ID!
  anchor: String!
  signature: String!
  recipient: String!
  owner: Owner!
  fee: Amount!
  quantity: Amount!
  data: MetaData!
  tags: [Tag!]!
  block: Block
  bundledIn: Bundle
}
type Owner { address: String!, key: String! }
type Amount { winston: String!, ar: String! }
type MetaData { size: String!, type: String }
type Tag { name: String!, value: String! }
type Block { id: ID!, timestamp: Int!, height: Int!, previous: ID! }
type Bundle { id: ID! }
"""


class Queries:
    """The query type, over the gateway's index."""

    def __init__(self, entries: EntryIndex, blocks: Blocks, bench: Bench) -> None:
        self._entries = entries
        self._blocks = blocks
        self._bench = bench
        self._parsed = lru_cache(maxsize=64)(self._parse)

    def answer(self, text: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return data and errors as GraphQL over HTTP has them; raises Rejected."""
        from graphql import execute_sync

        result = execute_sync(self._schema, self._parsed(text), variable_values=dict(variables))
        errors = [{"message": error.message} for error in result.errors or ()]
        return {"data": result.data, **({"errors": errors} if errors else {})}

    def _parse(self, text: str) -> DocumentNode:
        """Parse a query and check it against the schema; raises Rejected with graphql's words."""
        from graphql import GraphQLError, parse, validate

        try:
            document = parse(text, max_tokens=_MAX_TOKENS)
        except GraphQLError as wrong:
            raise Rejected(wrong.message) from wrong
        errors = validate(self._schema, document)
        if errors:
            raise Rejected("; ".join(error.message for error in errors[:3]))
        return document

    @cached_property
    def _schema(self) -> GraphQLSchema:
        from graphql import build_schema

        schema = build_schema(_SCHEMA)
        fields = schema.query_type.fields if schema.query_type else {}
        fields["transaction"].resolve = self._transaction
        fields["transactions"].resolve = self._transactions
        return schema

    def _transaction(self, _root: object, _info: object, id: str) -> dict[str, Any] | None:  # noqa: A002
        (entry,) = self._entries.search(self._seen(Search(ids=[id], limit=1))) or (None,)
        return self._node(entry) if entry else None

    def _transactions(self, _root: object, _info: object, **asked: Any) -> dict[str, Any]:
        page = max(1, min(asked["first"] or 1, MAX_PAGE))
        entries = self._entries.search(self._seen(_search(asked, page + 1)))
        edges = [{"cursor": _cursor(e), "node": self._node(e)} for e in entries[:page]]
        return {"pageInfo": {"hasNextPage": len(entries) > page}, "edges": edges}

    def _seen(self, search: Search) -> Search:
        """Return a search that does not find what is to be hidden."""
        faults = self._bench.faults
        hidden = tuple(faults.hide)
        upto = self._entries.newest(faults.hide_newest) if faults.hide_newest else None
        if EVERY in hidden:
            hidden, upto = (), 0
        if hidden or upto is not None:
            self._bench.reached["hide"] += 1
        return replace(search, hidden=hidden, upto=upto)

    def _node(self, entry: IndexEntry) -> dict[str, Any]:
        """Return an entry as GraphQL answers it; the test bench may have it told wrongly."""
        entry = self._bench.told(entry)
        return {
            "id": entry.id,
            "anchor": entry.anchor,
            "signature": entry.signature,
            "recipient": entry.target,
            "owner": {"address": entry.address, "key": entry.owner},
            "fee": _amount(entry.reward),
            "quantity": _amount(entry.quantity),
            "data": {"size": str(entry.size), "type": dict(entry.tags).get("Content-Type")},
            "tags": [{"name": name, "value": value} for name, value in entry.tags],
            "block": None if entry.height is None else self._block(entry.height),
            "bundledIn": {"id": entry.bundled_in} if entry.bundled_in else None,
        }

    def _block(self, height: int) -> dict[str, Any]:
        return {
            "id": self._blocks.hash_of(height),
            "timestamp": self._blocks.time_of(height),
            "height": height,
            "previous": self._blocks.hash_of(height - 1),
        }


def _search(asked: Mapping[str, Any], limit: int) -> Search:
    """Return what a query's arguments look for."""
    block = asked.get("block") or {}
    return Search(
        ids=asked.get("ids"),
        owners=asked.get("owners"),
        recipients=asked.get("recipients"),
        bundles=asked.get("bundledIn"),
        tags=_tag_tests(asked.get("tags") or ()),
        lowest=block.get("min"),
        highest=block.get("max"),
        newest_first=asked["sort"] != "HEIGHT_ASC",
        after=_number(asked["after"]) if asked.get("after") else None,
        limit=limit,
    )


def _tag_tests(filters: Sequence[Mapping[str, Any]]) -> list[TagTest]:
    from graphql import GraphQLError

    if len(filters) > MAX_TESTS:
        raise GraphQLError(f"at most {MAX_TESTS} tag filters are taken")
    return [TagTest(f["name"], f["values"], negated=f["op"] == "NEQ") for f in filters]


def _cursor(entry: IndexEntry) -> str:
    return b64url(entry.number.to_bytes(8, "big"))


def _number(cursor: str) -> int:
    from graphql import GraphQLError

    try:
        number = int.from_bytes(unb64url(cursor), "big")
    except StateCorrupt as error:
        raise GraphQLError("the cursor is not one of this gateway") from error
    return min(number, 2**63 - 1)


def _amount(winston: int) -> dict[str, str]:
    whole, part = divmod(winston, 10**_WINSTON_DIGITS)
    return {"winston": str(winston), "ar": f"{whole}.{part:0{_WINSTON_DIGITS}d}"}

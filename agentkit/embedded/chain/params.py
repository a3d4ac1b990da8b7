"""Reading what clients send.  Everything here raises Fault for what it cannot read."""

from __future__ import annotations

from dataclasses import dataclass

from eth.abc import BlockHeaderAPI
from eth_typing import Address

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.fault import INVALID_PARAMS, REFUSED, Fault
from agentkit.embedded.chain.simulate import Call
from agentkit.embedded.chain.store import Wanted

_NEWEST = ("latest", "pending", "safe", "finalized")
_NO_BLOCK = 2**63 - 1
"""A number that no block has, and the largest that the store can be asked for."""

# Longer text is refused before it is turned into a number: 256 bits are the longest quantity.
_LONGEST_QUANTITY = 66


def quantity(value: object) -> int:
    """Read a number in hex."""
    if isinstance(value, str) and value[:2] == "0x" and len(value) <= _LONGEST_QUANTITY:
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise Fault(INVALID_PARAMS, f"{str(value)[:80]!r} is not a quantity")


def data(value: object, length: int | None = None) -> bytes:
    """Read bytes in hex, of `length` if it is given."""
    if isinstance(value, str) and value[:2] == "0x":
        try:
            read = bytes.fromhex(value[2:])
        except ValueError:
            read = None
        if read is not None and length in (None, len(read)):
            return read
    raise Fault(INVALID_PARAMS, f"{str(value)[:80]!r} is not data of {length or 'any'} bytes")


def address(value: object) -> Address:
    """Read an address in hex, in whatever case."""
    return Address(data(value, 20))


def block_number(chain: Chain, tag: object) -> int:
    """Read a number or one of the names of the oldest and the newest block."""
    if tag is None or tag in _NEWEST:
        return chain.number
    if tag == "earliest":
        return 0
    return min(quantity(tag), _NO_BLOCK)


def header(chain: Chain, tag: object) -> BlockHeaderAPI:
    """Return the header of the block that `tag` names."""
    found = chain.header(block_number(chain, tag))
    if found is None:
        raise Fault(REFUSED, f"there is no block {tag}")
    return found


def execution_header(chain: Chain, tag: object) -> BlockHeaderAPI:
    """Return the header a call is executed under.

    The newest block stands for the next one: as blocks come only with transactions, a call would
    otherwise be judged by the time of the last transaction, which may be long ago.
    """
    if tag is None or tag in _NEWEST:
        return chain.next_header()
    return header(chain, tag)


def call(value: object) -> Call:
    """Read the call object of eth_call and eth_estimateGas."""
    if not isinstance(value, dict):
        raise Fault(INVALID_PARAMS, "a call is an object")
    return Call(
        sender=address(value.get("from") or "0x" + "00" * 20),
        to=address(value["to"]) if value.get("to") else b"",
        data=data(value.get("input") or value.get("data") or "0x"),
        value=quantity(value.get("value") or "0x0"),
        gas=quantity(value["gas"]) if value.get("gas") else None,
    )


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs eth_getLogs is asked for."""

    first: int
    last: int
    addresses: Wanted
    topics: tuple[Wanted, ...]


def log_filter(chain: Chain, value: object) -> LogFilter:
    """Read the filter of eth_getLogs."""
    if not isinstance(value, dict):
        raise Fault(INVALID_PARAMS, "a filter is an object")
    if value.get("blockHash"):
        first = last = _number_of_hash(chain, value["blockHash"])
    else:
        first = block_number(chain, value.get("fromBlock"))
        last = block_number(chain, value.get("toBlock"))
    topics = value.get("topics") or []
    if not isinstance(topics, list) or len(topics) > 4:
        raise Fault(INVALID_PARAMS, "topics are a list of at most four")
    wanted = tuple(_alternatives(topic, 32) for topic in topics)
    return LogFilter(first, last, _alternatives(value.get("address"), 20), wanted)


def _number_of_hash(chain: Chain, value: object) -> int:
    found = chain.header_by_hash(data(value, 32))
    if found is None:
        raise Fault(REFUSED, "unknown block")
    return found.block_number


def _alternatives(value: object, length: int) -> Wanted:
    if value is None:
        return ()
    many = value if isinstance(value, list) else [value]
    return tuple(data(one, length) for one in many)

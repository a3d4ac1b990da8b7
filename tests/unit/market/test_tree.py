"""The tree of RFC 6962, grown leaf by leaf, against the definition and its published vectors."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.market import tree


def defined(leaves: list[bytes]) -> bytes:
    """The hash as section 2.1 of the RFC defines it."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    left, right = defined(leaves[:half]), defined(leaves[half:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def grown(leaves: list[bytes]) -> bytes:
    peaks: tree.Peaks = ()
    for number, leaf in enumerate(leaves):
        peaks = tree.added(peaks, number, tree.leaf_of(leaf))
        assert len(peaks) == (number + 1).bit_count()
    return tree.root_of(peaks)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70))
def test_a_tree_grown_leaf_by_leaf_has_the_defined_root(leaves: list[bytes]) -> None:
    assert grown(leaves) == defined(leaves)


# Test vectors of the certificate transparency project (leaves of its reference tree).
INPUTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("count", range(1, 9))
def test_known_roots(count: int) -> None:
    assert grown([bytes.fromhex(leaf) for leaf in INPUTS[:count]]).hex() == ROOTS[count - 1]


def test_nothing_paid_has_the_empty_root() -> None:
    assert tree.root_of(()) == bytes(32)

"""Whatever anybody sends in whatever order: a head moves only by its owner, from where it is."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.evm import Deployed, Evm

from agentkit.keys.messages import address_word, keccak, word
from agentkit.keys.signer import KeySigner

NONE = bytes(32)
OWNERS = [KeySigner(number.to_bytes(32, "big")) for number in (1, 2, 3)]
HEADS = [bytes([number]) * 32 for number in range(4)]
owners = st.sampled_from(OWNERS)
heads = st.sampled_from(HEADS)


class Anchor(RuleBasedStateMachine):
    done: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.contract = Deployed.new(Evm(), "HeadAnchor", OWNERS[0])
        self.heads = {owner.address: NONE for owner in OWNERS}

    @rule(owner=owners, head=heads)
    def go_on(self, owner: KeySigner, head: bytes) -> None:
        self.send(owner, self.heads[owner.address], head)

    @rule(owner=owners, expected=heads, head=heads)
    def guess(self, owner: KeySigner, expected: bytes, head: bytes) -> None:
        self.send(owner, expected, head)

    @rule(owner=owners, other=owners, head=heads)
    def take(self, owner: KeySigner, other: KeySigner, head: bytes) -> None:
        """Move somebody else's head, from where that one is."""
        self.send(owner, self.heads[other.address], head)

    @rule(owner=owners, head=heads.filter(any))
    def repeat(self, owner: KeySigner, head: bytes) -> None:
        """Send the same call again: it counts once."""
        before = self.heads[owner.address]
        self.send(owner, before, head)
        if before != head:
            self.send(owner, before, head)

    def send(self, owner: KeySigner, expected: bytes, head: bytes) -> None:
        here = self.heads[owner.address]
        reason = "another head stands here" if expected != here else "" if any(head) else "no head"
        said = self.contract.refusal(owner, "advance", expected, head)
        assert said == reason
        self.done.add(said)
        if not said:
            self.heads[owner.address] = head
            (told,) = self.contract.said("Advanced")
            assert told["owner"].lower() == owner.address.lower()
            assert (told["before"], told["head"]) == (expected, head)

    @invariant()
    def it_is_as_the_rules_say(self) -> None:
        for owner in OWNERS:
            slot = keccak_slot(owner)
            assert self.contract.evm.stored(self.contract.address, slot) == int.from_bytes(
                self.heads[owner.address]
            )


def keccak_slot(owner: KeySigner) -> bytes:
    """Return where `headOf` has an owner's head."""
    return keccak(word(0) + address_word(owner.address))


def test_a_head_moves_only_by_its_owner_and_from_where_it_is() -> None:
    run_state_machine_as_test(
        Anchor,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    assert Anchor.done == {"", "another head stands here", "no head"}


def test_everybody_can_read_a_head() -> None:
    contract = Deployed.new(Evm(), "HeadAnchor", OWNERS[0])
    assert contract.evm.call(OWNERS[1], contract.address, data_of("headOf", OWNERS[0])) == NONE
    contract.evm.call(OWNERS[0], contract.address, contract.data("advance", NONE, HEADS[1]))
    assert contract.evm.call(OWNERS[1], contract.address, data_of("headOf", OWNERS[0])) == HEADS[1]


def data_of(name: str, owner: KeySigner) -> bytes:
    return keccak(f"{name}(address)".encode())[:4] + address_word(owner.address)

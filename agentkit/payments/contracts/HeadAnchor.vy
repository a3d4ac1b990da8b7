# pragma version 0.4.3
# pragma evm-version cancun
"""
@title The newest head of a log, moved on by its owner from the one it knows
@license Apache-2.0
@notice Whoever sends the transaction owns the head.  Two machines with one key can both sign a
    move from the same head; the second one is refused.  No money moves through here.
"""

event Advanced:
    owner: indexed(address)
    before: indexed(bytes32)
    head: indexed(bytes32)

headOf: public(HashMap[address, bytes32])


@external
def advance(expected: bytes32, head: bytes32):
    """
    @notice Move the sender's head on.
    @param expected The head that stands here now, zero before the first
    @param head The head to stand here from now on
    """
    assert self.headOf[msg.sender] == expected, "another head stands here"
    assert head != empty(bytes32), "no head"
    self.headOf[msg.sender] = head
    log Advanced(owner=msg.sender, before=expected, head=head)

"""How much gas a facilitator pays for: wallets that are contracts run code of their own."""

MOST_GAS = 1_000_000
"""The most that one payment may take.

A plain one takes a tenth of it; a contract that checks a signature may need several times as much.
"""

CLAIM_GAS = 100_000
"""What each claim of a batch may take beside that."""

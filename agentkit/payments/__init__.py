"""Paying for it: budget, rails, the exactly-once sender, contracts."""

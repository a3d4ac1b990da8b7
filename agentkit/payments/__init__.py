"""Payments: budget, rails, transactions that are sent exactly once, contracts."""

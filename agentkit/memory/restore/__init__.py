"""Restoring a wallet from what gateways hold of its log."""

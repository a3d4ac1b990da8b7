"""Uploads: the outbox, and the paths along which it reaches Arweave."""

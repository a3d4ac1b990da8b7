"""Remembering: sealed segments on Arweave, restore, artifact stores."""

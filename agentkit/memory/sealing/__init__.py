"""Sealing: segments and snapshots that only the wallet's key opens."""

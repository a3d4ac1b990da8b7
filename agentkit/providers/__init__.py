"""Providers: an adapter for each kind of network, behind the interface `Provider`."""

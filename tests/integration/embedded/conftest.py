from support.bare_gateway import clock, gateway, items, weave
from support.embedded_chain import chain, path

__all__ = ["chain", "clock", "gateway", "items", "path", "weave"]

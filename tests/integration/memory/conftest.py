from support.bare_gateway import clock, gateway
from support.layer1_transactions import jwk, signed, wallet

__all__ = ["clock", "gateway", "jwk", "signed", "wallet"]

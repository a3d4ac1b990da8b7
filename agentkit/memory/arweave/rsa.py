"""RSA-PSS signatures as Arweave makes them: 4096 bits, exponent 65537, SHA-256."""

from __future__ import annotations

from agentkit.errors import StateCorrupt

KEY_BYTES = 512
EXPONENT = 65537


def verify_pss(owner: bytes, message: bytes, signature: bytes) -> None:
    """Verify a signature by the key whose modulus is `owner`; raises StateCorrupt.

    Any length of the salt is accepted: arweave-js uses 32 bytes, other wallets the longest salt.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256

    if len(owner) != KEY_BYTES:
        raise StateCorrupt(f"an owner key of {len(owner)} bytes is not one of {KEY_BYTES}")
    try:
        key = RSAPublicNumbers(EXPONENT, int.from_bytes(owner, "big")).public_key()
        key.verify(signature, message, PSS(MGF1(SHA256()), PSS.AUTO), SHA256())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise StateCorrupt("the signature does not cover this content") from error

"""Nothing is signed for a chain that the settings do not name."""

import pickle
from dataclasses import replace

import pytest
from support.signer_messages import CALL, DOMAIN, MESSAGES

from agentkit.errors import NotAllowed
from agentkit.keys.bounded_signer import BoundedSigner
from agentkit.keys.signer import KeySigner, Signer

KEY = KeySigner(b"\x07" * 32)
SIGNER = BoundedSigner(KEY, [1, DOMAIN.chain_id])
STATEMENTS = {"sign_offer", "sign_receipt"}
"""What moves no money."""


def test_every_operation_that_signs_for_a_chain_is_here() -> None:
    signing = {name for name in vars(Signer) if name.startswith("sign_")}
    assert signing == MESSAGES.keys() | {"sign_tx", "sign_item"}


@pytest.mark.parametrize("verb", sorted(STATEMENTS))
def test_a_statement_has_one_domain_for_all_chains(verb: str) -> None:
    sign, domain = getattr(SIGNER, verb), replace(DOMAIN, chain_id=10)
    assert sign(domain, MESSAGES[verb]) == getattr(KEY, verb)(domain, MESSAGES[verb])


@pytest.mark.parametrize("verb", sorted(MESSAGES.keys() - STATEMENTS))
def test_a_message_is_signed_for_a_chain_of_the_settings_alone(verb: str) -> None:
    sign, message = getattr(SIGNER, verb), MESSAGES[verb]
    assert sign(DOMAIN, message) == getattr(KEY, verb)(DOMAIN, message)
    with pytest.raises(NotAllowed, match="chain 10: it is not") as wrong:
        sign(replace(DOMAIN, chain_id=10), message)
    assert "[networks.NAME]" in wrong.value.hint


def test_a_transaction_is_signed_for_a_chain_of_the_settings_alone() -> None:
    assert SIGNER.sign_tx(CALL) == KEY.sign_tx(CALL)
    with pytest.raises(NotAllowed, match="chain 10"):
        SIGNER.sign_tx(replace(CALL, chain_id=10))


def test_it_is_the_same_wallet_and_cannot_be_copied() -> None:
    assert (SIGNER.address, SIGNER.public_key) == (KEY.address, KEY.public_key)
    assert SIGNER.derive("x") == KEY.derive("x")
    with pytest.raises(TypeError):
        pickle.dumps(SIGNER)

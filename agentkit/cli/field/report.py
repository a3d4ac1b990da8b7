"""The report of a field run: what came of each canary, signed by the wallet's key.

The signature is that of an ANS-104 data item over the report's JSON, an operation that every
signer has; so the report can be put on Arweave as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from agentkit import strict_json
from agentkit.cli.field.canary import Line, Outcome, Units
from agentkit.errors import WrongInput
from agentkit.file_io import read_bytes, write_text
from agentkit.keys.messages import ItemMessage, address_of, recover
from agentkit.keys.signer import Signer
from agentkit.memory.arweave.tags import encode_tags

FORMAT = "agentkit field report 1"
TAGS = (("App-Name", "agentkit"), ("Type", "field-report"))
MAX_BYTES = 1 << 20
PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 65, 65

Moment = Annotated[int, Field(ge=0, lt=2**32)]
"""A unix time that calendars have."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a field run found.

    `began` in unix seconds; `facilitator` is whose gas it was, as the host of its address.
    """

    network: Line
    chain_id: Units
    contract: Line
    wallet: Line
    seller: Line
    facilitator: Line
    version: Line
    began: Moment
    canaries: tuple[Outcome, ...]

    def document(self) -> dict[str, Any]:
        """Return the report as JSON values; sums stand beside what they sum."""
        return {
            "format": FORMAT,
            **asdict(self),
            "canaries": [asdict(outcome) for outcome in self.canaries],
            "paid": sum(outcome.paid for outcome in self.canaries),
            "gas": sum(outcome.gas for outcome in self.canaries),
        }

    @classmethod
    def of(cls, document: Any) -> Report:
        """Read what `document` returned; raises ValueError for anything else."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("it is not a field report of this version")
        try:
            report = _READER.validate_json(strict_json.dumps(document), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"it is wrong at {place[:64]}: {first['msg']}") from error
        if report.document() != document:
            raise ValueError("its fields or its sums are not those of a report")
        return report


_READER: TypeAdapter[Report] = TypeAdapter(Report)


def save(path: Path, report: Report, signer: Signer) -> None:
    """Write a report with its signature."""
    document = report.document()
    signed = signer.sign_item(_message(signer.public_key, document))
    envelope = {
        "report": document,
        "public_key": signer.public_key.hex(),
        "signature": signed.hex(),
    }
    write_text(path, strict_json.dumps(envelope).decode() + "\n")


def check(path: Path) -> Report:
    """Return the report in a file, offline; raises WrongInput unless its wallet signed it."""
    content = read_bytes(path, MAX_BYTES)
    try:
        envelope = strict_json.loads(content)
        key = bytes.fromhex(envelope["public_key"])
        signature = bytes.fromhex(envelope["signature"])
        report = Report.of(envelope["report"])
        signer = _signer_of(key, signature, envelope["report"])
    except (ValueError, TypeError, KeyError, LookupError) as error:
        raise WrongInput(
            f"{path} is not a signed field report: {error}",
            hint="make one with `agentkit field NETWORK`",
        ) from error
    if signer != report.wallet:
        raise WrongInput(
            f"{path} is not signed by the wallet {report.wallet} that it names",
            hint="it was changed, or written by somebody else: believe nothing in it",
        )
    return report


def _signer_of(key: bytes, signature: bytes, document: dict[str, Any]) -> str:
    """Return the address that signed a document, "" where key and signature do not belong together.

    Raises ValueError for what cannot be a key or a signature.
    """
    if len(key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise ValueError("the key or the signature has another length")
    signer = recover(_message(key, document).digest(), signature)
    return signer if signer == address_of(key) else ""


def _message(owner: bytes, document: dict[str, Any]) -> ItemMessage:
    """Return what is signed: the document as the data of an item of its owner."""
    data = strict_json.dumps(document)
    return ItemMessage(owner=owner, target=b"", anchor=b"", tags=encode_tags(TAGS), data=data)

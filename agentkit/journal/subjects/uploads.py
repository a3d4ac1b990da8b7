"""Uploads: the fees of Arweave's own transactions, in AR."""

from __future__ import annotations

from typing import ClassVar

from agentkit.journal.folding import Records, folds
from agentkit.journal.subjects.budget import add_to_total, subtract_from_total
from agentkit.market.seams import Event
from agentkit.money import Money


class UploadSigned(Event):
    """A layer-1 transaction of Arweave was signed; from here on its fee may be paid."""

    stored_name: ClassVar[str] = "UploadSigned"
    tx: str
    fee: Money


class UploadDropped(Event):
    """A layer-1 transaction can never be mined any more; its fee was not paid."""

    stored_name: ClassVar[str] = "UploadDropped"
    tx: str
    fee: Money


@folds(UploadSigned)
def _fold_upload_signed(event: UploadSigned, stream: str, at: float, records: Records) -> None:
    add_to_total(records, "uploads", event.fee)


@folds(UploadDropped)
def _fold_upload_dropped(event: UploadDropped, stream: str, at: float, records: Records) -> None:
    subtract_from_total(records, "uploads", event.fee)

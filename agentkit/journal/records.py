"""The closed set of records that events fold into; each is defined with its subject."""

from __future__ import annotations

from agentkit.journal.subjects.budget import (
    Account,
    Hold,
    Pace,
    Reservation,
    Total,
)
from agentkit.journal.subjects.chain import (
    Anchor,
    AnchoredStream,
    Credited,
    CreditReading,
    CreditTransfer,
    EvmTransaction,
    Nonce,
    PayerBinding,
    Restoration,
)
from agentkit.journal.subjects.channel_payments import Lane, LaneOfAttempt
from agentkit.journal.subjects.channel_sales import (
    ChannelAnswer,
    ChannelAnswerName,
    SoldChannel,
)
from agentkit.journal.subjects.channels import (
    Channel,
    CurrentChannel,
)
from agentkit.journal.subjects.effects import (
    Effect,
)
from agentkit.journal.subjects.escrow import (
    Escrow,
)
from agentkit.journal.subjects.knowledge import (
    Entry,
    Fact,
    FactCount,
    Note,
    NoteCount,
    Retention,
)
from agentkit.journal.subjects.node import (
    BookedChannel,
    EarnedEscrow,
    GivenBack,
    Job,
)
from agentkit.journal.subjects.runs import (
    CancelRequest,
    Reputation,
    Reusable,
    Run,
)
from agentkit.journal.subjects.upto_payments import (
    OutstandingUpto,
    UptoPermitRow,
)
from agentkit.journal.subjects.upto_sales import (
    OpenUpto,
    UptoName,
    UptoSale,
)
from agentkit.journal.subjects.x402 import (
    Authorization,
    EarnedByScheme,
    IssuedReceipt,
    Outstanding,
    PaidRequest,
    PaymentName,
)
from agentkit.market.seams import Record

RECORDS: dict[str, type[Record]] = {
    record.stored_name: record
    for record in (
        Run,
        Reputation,
        Reusable,
        Hold,
        Reservation,
        Total,
        Pace,
        Account,
        Channel,
        CurrentChannel,
        Escrow,
        EarnedEscrow,
        GivenBack,
        EvmTransaction,
        Nonce,
        Credited,
        CancelRequest,
        Restoration,
        Anchor,
        AnchoredStream,
        Note,
        NoteCount,
        Fact,
        FactCount,
        Retention,
        Entry,
        Job,
        BookedChannel,
        Authorization,
        Outstanding,
        PaidRequest,
        PaymentName,
        SoldChannel,
        ChannelAnswer,
        ChannelAnswerName,
        Lane,
        LaneOfAttempt,
        Effect,
        PayerBinding,
        CreditReading,
        CreditTransfer,
        EarnedByScheme,
        IssuedReceipt,
        UptoSale,
        UptoName,
        OpenUpto,
        UptoPermitRow,
        OutstandingUpto,
    )
}
"""Every kind of record, by the name under which it is stored.

The order and the names are part of the format: both go into the digest that stands in
`tests/unit/journal/test_versions.py`.
"""

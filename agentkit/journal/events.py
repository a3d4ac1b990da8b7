"""The closed set of events that a state file can hold; each is defined with its subject.

There are three sorts of stream: one for each run, `wallet` for money and what the agent knows,
`node` in the state file of a provider node.  A record is folded from one sort of stream only, so
that streams may be restored in any order.  A field that an old reader cannot do without means a
new VERSION.
"""

from __future__ import annotations

from agentkit.journal.produced import TINY_BYTES, Produced
from agentkit.journal.subjects.budget import (
    Held,
    HoldReduced,
    HoldReleased,
    Reserved,
    Spent,
    Unreserved,
)
from agentkit.journal.subjects.chain import (
    CreditFunded,
    CreditLanded,
    CreditRead,
    CreditSent,
    HeadChosen,
    PayerBound,
    Restored,
    TxFinal,
    TxSigned,
)
from agentkit.journal.subjects.channel_payments import (
    DepositEnded,
    DepositSigned,
    LaneCharged,
    LaneClosed,
    LaneClosing,
    LaneFreed,
    LaneOpened,
    LanePromised,
    LaneStated,
    LaneWithdrawn,
)
from agentkit.journal.subjects.channel_sales import (
    ChannelMirrored,
    ChannelRefundOrdered,
    RequestCharged,
)
from agentkit.journal.subjects.channels import (
    ChannelClosed,
    ChannelCloseRequested,
    ChannelClosing,
    ChannelFunded,
    ChannelOpened,
    TopUpEnded,
    TopUpSigned,
    VoucherFound,
    VoucherMatched,
    VoucherSigned,
)
from agentkit.journal.subjects.effects import (
    EffectBegun,
    EffectEnded,
)
from agentkit.journal.subjects.escrow import (
    EscrowAccepted,
    EscrowClosed,
    EscrowOpened,
    EscrowQuoted,
)
from agentkit.journal.subjects.knowledge import (
    Extra,
    FactLearned,
    Forgotten,
    Knowing,
    NoteAdded,
    RetentionSet,
    Shelved,
    Unshelved,
)
from agentkit.journal.subjects.node import (
    ChannelSettled,
    CloseSeen,
    EscrowEarned,
    EscrowGivenBack,
    EscrowSettled,
    EscrowSubmitted,
    JobEnded,
    JobStarted,
    JobTaken,
    VoucherTaken,
)
from agentkit.journal.subjects.runs import (
    Approved,
    AttemptClosed,
    AttemptOpened,
    BudgetRaised,
    CancelAsked,
    Earlier,
    ItemDone,
    ItemSkipped,
    NodeDone,
    NodeFailed,
    NodesEnded,
    NodeSkipped,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
)
from agentkit.journal.subjects.uploads import (
    UploadDropped,
    UploadSigned,
)
from agentkit.journal.subjects.upto_payments import (
    UptoPermitEnded,
    UptoPermitSigned,
)
from agentkit.journal.subjects.upto_sales import (
    UptoCharged,
    UptoEnded,
    UptoTaken,
)
from agentkit.journal.subjects.x402 import (
    AuthorizationEnded,
    AuthorizationSigned,
    PaymentAnswered,
    PaymentSettled,
    PaymentTaken,
    ReceiptIssued,
    RequestPaid,
)
from agentkit.market.seams import Event

VERSION = 3
"""Version of the set, written with every event; a newer one is refused at read.

It rises whenever an event, a field or a default of the set changes (CONTRIBUTING.md), and
`journal.upgrades` says how what earlier versions wrote is read.  Version 1: everything up to and
including the head anchor, while the set still grew.  Version 2: until channels by x402
`batch-settlement`.
"""

WALLET = "wallet"
NODE = "node"

EVENTS: dict[str, type[Event]] = {
    event.stored_name: event
    for event in (
        RunStarted,
        RunResumed,
        AttemptOpened,
        AttemptClosed,
        ItemDone,
        ItemSkipped,
        NodeDone,
        NodeSkipped,
        NodesEnded,
        NodeFailed,
        Approved,
        BudgetRaised,
        RunPaused,
        RunFinished,
        Held,
        Reserved,
        Unreserved,
        Spent,
        HoldReleased,
        HoldReduced,
        TxSigned,
        TxFinal,
        ChannelOpened,
        ChannelFunded,
        VoucherSigned,
        ChannelClosed,
        ChannelClosing,
        ChannelCloseRequested,
        EscrowQuoted,
        EscrowOpened,
        EscrowAccepted,
        EscrowClosed,
        CreditFunded,
        VoucherFound,
        VoucherMatched,
        Restored,
        HeadChosen,
        NoteAdded,
        FactLearned,
        Forgotten,
        RetentionSet,
        Shelved,
        Unshelved,
        CancelAsked,
        Extra,
        AuthorizationSigned,
        AuthorizationEnded,
        UploadSigned,
        UploadDropped,
        JobTaken,
        JobStarted,
        JobEnded,
        VoucherTaken,
        CloseSeen,
        EscrowEarned,
        EscrowGivenBack,
        EscrowSubmitted,
        EscrowSettled,
        ChannelSettled,
        PaymentTaken,
        PaymentSettled,
        PaymentAnswered,
        ChannelMirrored,
        RequestCharged,
        ChannelRefundOrdered,
        LaneOpened,
        DepositSigned,
        DepositEnded,
        LanePromised,
        LaneStated,
        LaneCharged,
        LaneFreed,
        LaneClosing,
        LaneClosed,
        LaneWithdrawn,
        EffectBegun,
        EffectEnded,
        PayerBound,
        CreditRead,
        CreditSent,
        CreditLanded,
        TopUpSigned,
        TopUpEnded,
        RequestPaid,
        ReceiptIssued,
        UptoTaken,
        UptoCharged,
        UptoEnded,
        UptoPermitSigned,
        UptoPermitEnded,
    )
}
"""Every event that is ever written, by the name under which it is stored.

The order and the names are part of the format: both go into the digest that stands in
`tests/unit/journal/test_versions.py`.
"""

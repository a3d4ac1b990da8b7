"""Every error agentkit raises.

AgentKitError                    .hint: one line that starts with a verb, names a command or key
├─ ConfigError                   BadAmount (also TypeError, ValueError)  MissingExtra  WrongKey
│                                Untrusted
├─ GraphError (also ValueError)  DuplicateNode  UnknownInput  CyclicGraph  WrongInput
│                                UnknownKind (WrongInput)  UntrustedCode
├─ PlanError                     nothing has been spent: NoOffer  OverBudget  PastDeadline
│                                PlanExpired
├─ ProviderError  .retryable     Unavailable  RateLimited  Refused  OfferExpired  LeaseLost
│                                BadOutput  ProtocolBroken (also AdapterFailed)
├─ PaymentError                  InsufficientFunds  NotAllowed  IntentMismatch  SettlementFailed
│                                PaymentUncertain
├─ StateError                    RunNotFound  JournalDamaged  StoreUnavailable  StateForked
│                                StateCorrupt  NotConfirmed  StateTooNew (JournalDamaged)
│                                EffectUncertain  EffectFailed
├─ RunError                      RunFailed  RunPaused
└─ TimedOut  .stage .seconds     a stage of one try; each is its room's error too: OffersTimedOut
                                 SubmitTimedOut  ExecuteTimedOut (Unavailable)
                                 SettleTimedOut (SettlementFailed)  StoreTimedOut (StoreUnavailable)

The first line of a class docstring is its default message. Raise ours `from` theirs at the
adapter's edge and nowhere else.
"""

from __future__ import annotations

from agentkit.errors.base import MAX_MESSAGE as MAX_MESSAGE
from agentkit.errors.base import AgentKitError as AgentKitError
from agentkit.errors.base import brief as brief
from agentkit.errors.base import in_one_line as in_one_line
from agentkit.errors.base import writable as writable
from agentkit.errors.graph import CyclicGraph as CyclicGraph
from agentkit.errors.graph import DuplicateNode as DuplicateNode
from agentkit.errors.graph import GraphError as GraphError
from agentkit.errors.graph import UnknownInput as UnknownInput
from agentkit.errors.graph import UnknownKind as UnknownKind
from agentkit.errors.graph import UntrustedCode as UntrustedCode
from agentkit.errors.graph import WrongInput as WrongInput
from agentkit.errors.payment import InsufficientFunds as InsufficientFunds
from agentkit.errors.payment import IntentMismatch as IntentMismatch
from agentkit.errors.payment import NotAllowed as NotAllowed
from agentkit.errors.payment import PaymentError as PaymentError
from agentkit.errors.payment import PaymentUncertain as PaymentUncertain
from agentkit.errors.payment import SettlementFailed as SettlementFailed
from agentkit.errors.plan import NoOffer as NoOffer
from agentkit.errors.plan import OverBudget as OverBudget
from agentkit.errors.plan import PastDeadline as PastDeadline
from agentkit.errors.plan import PlanError as PlanError
from agentkit.errors.plan import PlanExpired as PlanExpired
from agentkit.errors.provider import AdapterFailed as AdapterFailed
from agentkit.errors.provider import BadOutput as BadOutput
from agentkit.errors.provider import LeaseLost as LeaseLost
from agentkit.errors.provider import OfferExpired as OfferExpired
from agentkit.errors.provider import ProtocolBroken as ProtocolBroken
from agentkit.errors.provider import ProviderError as ProviderError
from agentkit.errors.provider import RateLimited as RateLimited
from agentkit.errors.provider import Refused as Refused
from agentkit.errors.provider import Unavailable as Unavailable
from agentkit.errors.run import RunError as RunError
from agentkit.errors.run import RunFailed as RunFailed
from agentkit.errors.run import RunPaused as RunPaused
from agentkit.errors.settings import BadAmount as BadAmount
from agentkit.errors.settings import ConfigError as ConfigError
from agentkit.errors.settings import MissingExtra as MissingExtra
from agentkit.errors.settings import Untrusted as Untrusted
from agentkit.errors.settings import WrongKey as WrongKey
from agentkit.errors.state import EffectFailed as EffectFailed
from agentkit.errors.state import EffectUncertain as EffectUncertain
from agentkit.errors.state import JournalDamaged as JournalDamaged
from agentkit.errors.state import NotConfirmed as NotConfirmed
from agentkit.errors.state import RunNotFound as RunNotFound
from agentkit.errors.state import StateCorrupt as StateCorrupt
from agentkit.errors.state import StateError as StateError
from agentkit.errors.state import StateForked as StateForked
from agentkit.errors.state import StateTooNew as StateTooNew
from agentkit.errors.state import StoreUnavailable as StoreUnavailable
from agentkit.errors.timeouts import ExecuteTimedOut as ExecuteTimedOut
from agentkit.errors.timeouts import OffersTimedOut as OffersTimedOut
from agentkit.errors.timeouts import SettleTimedOut as SettleTimedOut
from agentkit.errors.timeouts import StoreTimedOut as StoreTimedOut
from agentkit.errors.timeouts import SubmitTimedOut as SubmitTimedOut
from agentkit.errors.timeouts import TimedOut as TimedOut

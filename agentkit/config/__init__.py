"""Settings, where each came from, and which of a folder's settings need a person's consent."""

from agentkit.config.secrets import SecretIn, SecretInFile, SecretInKeyring
from agentkit.config.serving import ServeSettings
from agentkit.config.settings import (
    LOCAL_FILE,
    USER_FILE,
    ApprovalSettings,
    ChainSettings,
    MemorySettings,
    NetworkSettings,
    PaymentSettings,
    ProviderSettings,
    Settings,
    WalletSettings,
)

__all__ = [
    "LOCAL_FILE",
    "USER_FILE",
    "ApprovalSettings",
    "ChainSettings",
    "MemorySettings",
    "NetworkSettings",
    "PaymentSettings",
    "ProviderSettings",
    "SecretIn",
    "SecretInFile",
    "SecretInKeyring",
    "ServeSettings",
    "Settings",
    "WalletSettings",
]

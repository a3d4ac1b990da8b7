"""What is wrong with settings, keys and amounts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agentkit.errors.base import AgentKitError


class ConfigError(AgentKitError):
    """The configuration cannot be used."""

    exit_code = 2
    default_hint = "run `agentkit doctor` to see every setting and where it came from"


class BadAmount(ConfigError, TypeError, ValueError):
    """This is not an amount of money."""

    default_hint = 'write amounts as text with a symbol, for example budget="0.05 USDC"'


class MissingExtra(ConfigError):
    """An optional part of agentkit is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed",
            hint=f'install it with: pip install "deai-agentkit[{extra}]"',
        )
        self.extra, self.package = extra, package


class WrongKey(ConfigError):
    """This key does not open that."""

    default_hint = "check AGENTKIT_PASSPHRASE and the [wallet] keystore path in agentkit.toml"


class Untrusted(ConfigError):
    """A folder's settings count only once a person trusts them.

    `folder` is its absolute path. `shown` holds each setting that needs consent and its value as
    text, secrets left out; `digests` a digest of each value. `changed` says of each key that
    earlier consent does not cover whether it is `new`, `changed` or `removed`. `shared` says why
    others could change the file, so that consent to it cannot be kept.
    """

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        folder: Path,
        shown: Mapping[str, str],
        digests: Mapping[str, str],
        changed: Mapping[str, str],
        shared: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.folder = folder
        self.shown = dict(shown)
        self.digests = dict(digests)
        self.changed = dict(changed)
        self.shared = shared

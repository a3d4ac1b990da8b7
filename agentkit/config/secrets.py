"""Where secrets are: settings name a place, and the secret is read when it is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from agentkit.config.reading import MAX_SECRET_BYTES
from agentkit.errors import ConfigError, MissingExtra
from agentkit.file_io import read_once


def _usable_path(given: object) -> object:
    """Return a path as it was given; raises ValueError for one that no file can have.

    An empty one would be the working directory.
    """
    if isinstance(given, str):
        if not given or "\0" in given:
            raise ValueError("this is not a path")
        try:
            Path(given).expanduser()
        except RuntimeError as error:
            raise ValueError(f"{given!r} names a user who is not known") from error
    return given


SettingsPath = Annotated[Path, BeforeValidator(_usable_path)]


class Section(BaseModel):
    """A part of the settings: closed, and silent about its values in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecretIn(Section):
    """The name of the environment variable that holds a secret."""

    env: str

    def read(self) -> str:
        """Return the secret; raises ConfigError when the variable is not set."""
        value = os.environ.get(self.env, "")
        if not value:
            raise ConfigError(
                f"the environment variable {self.env} is not set", hint=f"export {self.env}=..."
            )
        return value


class SecretInFile(Section):
    """A file that holds a secret, and that nobody else may read."""

    file: SettingsPath

    def read(self) -> str:
        """Return the secret, without a byte order mark and the end of its line.

        Raises ConfigError.
        """
        path = self.file.expanduser()
        try:
            raw, info = read_once(path, MAX_SECRET_BYTES)
            secret = raw.decode("utf-8-sig").rstrip("\r\n")
        except (OSError, ValueError):
            # Not `from` theirs: a UnicodeDecodeError holds the secret.
            raise ConfigError(f"{path} cannot be read", hint="check wallet.unlock.file") from None
        if info.st_mode & 0o077:
            raise ConfigError(f"others can read the secret in {path}", hint=f"run chmod 600 {path}")
        return secret


class SecretInKeyring(Section):
    """A secret in the system's keyring, under a service and this user's name."""

    keyring: str
    user: str = "agentkit"

    def read(self) -> str:
        """Return the secret; raises ConfigError, MissingExtra."""
        try:
            import keyring
            from keyring.errors import KeyringError
        except ImportError as error:
            raise MissingExtra("keyring", "keyring") from error
        try:
            found = keyring.get_password(self.keyring, self.user)
        except KeyringError as error:
            raise ConfigError(f"the keyring cannot be read: {error}", hint="unlock it") from error
        if not found:
            raise ConfigError(
                f"the keyring has no secret of {self.keyring!r} for {self.user!r}",
                hint=f"store it with: keyring set {self.keyring} {self.user}",
            )
        return found

"""Which settings of a folder's `agentkit.toml` need a person's consent.

A folder may be a stranger's. Whatever its settings could use to move money, send a secret, reach an
address or run code counts only once the folder is trusted (`agentkit trust`). `RULES` lists the few
keys that can be harmless, and when they are; every other key needs consent, so a new one does until
somebody decides otherwise.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentkit.config.reading import SettingsFile
from agentkit.errors import BadAmount
from agentkit.money import Money

Key = tuple[str, ...]
"""Where a value stands: `("providers", "gaia", "url")`."""

SECRET_KEYS = {"providers.*.api_key"}
"""Keys whose value may be a secret in clear; it is never shown."""

SECRETS_SENT_TO = {
    "providers.*.url": "api_key",
    "providers.*.urls": "api_key",
    "providers.*.adapter": "api_key",
    "approval.ask": "token",
}
"""Settings that say where a secret goes, and the key of that secret beside them."""


@dataclass(frozen=True)
class Setting:
    """One setting that a person is asked about: its value as text for the eye, and its digest."""

    shown: str
    digest: str


@dataclass(frozen=True)
class Comparison:
    """What a folder's value is held against: the folder, and the user's settings without it.

    `real` is true where the folder's settings or the user's set a real network.
    """

    folder: Path
    own: BaseModel
    real: bool

    def own_value(self, key: Key) -> Any:
        """Return what the user set for a key, None where there is nothing."""
        value: Any = self.own
        for name in key:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        return value


Rule = Callable[[Key, Any, Comparison], bool]
"""Returns whether a value is harmless, so that it counts without consent."""


def _is_name(key: Key, value: Any, comparison: Comparison) -> bool:
    """A name decides nothing."""
    return True


def _turns_off(key: Key, value: Any, comparison: Comparison) -> bool:
    return value is False


def _keeps_books_inside(key: Key, value: Any, comparison: Comparison) -> bool:
    """A state folder inside the folder is harmless with test money.

    On a real network it is not: the books that limits per day and ever are checked against lie in
    it, and a new folder would begin them again at zero.
    """
    return not comparison.real and is_inside(value, comparison.folder)


def _restricts(key: Key, value: Any, comparison: Comparison) -> bool:
    """A limit that is not above the user's; where the user has none, any limit restricts."""
    own = comparison.own_value(key)
    return own is None or _at_most(value, own)


def _stays_within(key: Key, value: Any, comparison: Comparison) -> bool:
    """A limit not above the user's, of a kind that allows nothing until it is set."""
    own = comparison.own_value(key)
    return own is not None and _at_most(value, own)


def _names_fewer(key: Key, value: Any, comparison: Comparison) -> bool:
    """A list of names that leaves out some of the user's; without the user's, any list does."""
    own = comparison.own_value(key)
    return isinstance(value, list) and (own is None or set(value) <= set(own))


RULES: dict[str, Rule] = {
    "home": _keeps_books_inside,
    "allowance.per_task": _restricts,
    "allowance.per_run": _restricts,
    "allowance.per_day": _restricts,
    "allowance.total": _restricts,
    "allowance.per_provider": _restricts,
    "allowance.exposure": _restricts,
    "allowance.per_minute": _restricts,
    "allowance.providers": _names_fewer,
    "allowance.gas": _stays_within,
    "allowance.rebuy_below": _stays_within,
    "approval.above": _restricts,
    "approval.patience": _restricts,
    "memory.per_upload": _stays_within,
    "memory.total": _stays_within,
    "memory.arweave_up_to": _stays_within,
    "memory.seal_before_pay": _restricts,
    "memory.stable_before_pay": _restricts,
    "providers.*.enabled": _turns_off,
    "providers.*.label": _is_name,
}


def settings_needing_consent(
    file: SettingsFile, own: BaseModel, *, real: bool
) -> dict[str, Setting]:
    """Return the settings of a folder's file that count only with consent, by their written key.

    `own` are the user's settings without this file. In a file that others can change, every
    setting needs consent.
    """
    comparison = Comparison(folder=file.folder, own=own, real=real)
    needed: dict[str, Setting] = {}
    for key, value in _leaves(file.data):
        rule = RULES.get(_pattern(key))
        if file.shared or rule is None or not rule(key, value, comparison):
            needed[written(key)] = _setting(key, value, _own_secret_sent(key, file, comparison))

    # A provider's adapter is code of an installed package, by default the one of its own name.
    for name, adapter in _new_adapters(file.data, comparison):
        key = ("providers", name, "adapter")
        needed[written(key)] = _setting(key, adapter, "")
    return needed


def written_keys(data: Mapping[str, Any]) -> set[str]:
    """Return the keys of all values in a settings file, as they are written."""
    return {written(key) for key, _ in _leaves(data)}


def written(key: Key) -> str:
    """Return a key as TOML writes it: `providers."my box".url`."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in key
    )


def is_inside(value: Any, folder: Path) -> bool:
    """Return whether a path in a folder's settings leads into the folder, symlinks resolved."""
    if not isinstance(value, str):
        return False
    try:
        return (folder / Path(value).expanduser()).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # what cannot be resolved is not inside
        return False


def _leaves(data: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield every value with its key; tables are walked, lists are values."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _pattern(key: Key) -> str:
    """Return the name under which a rule stands; the names of providers are free."""
    if key[0] == "providers" and len(key) > 2:
        key = ("providers", "*", *key[2:])
    return ".".join(key)


def _new_adapters(data: Mapping[str, Any], comparison: Comparison) -> Iterator[tuple[str, object]]:
    """Yield the name and adapter of each provider that the user has not set up."""
    providers = data.get("providers")
    for name, table in providers.items() if isinstance(providers, dict) else ():
        if not isinstance(table, dict) or table.get("enabled") is False:
            continue
        if comparison.own_value(("providers", name)) is None:
            yield name, table.get("adapter") or name


def _own_secret_sent(key: Key, file: SettingsFile, comparison: Comparison) -> str:
    """Return which secret of the user's own goes to the place that a folder's setting names.

    Settings merge key by key, so a folder's address of a provider joins the user's key for it.
    """
    secret = SECRETS_SENT_TO.get(_pattern(key))
    if secret is None:
        return ""
    secret_key = (*key[:-1], secret)
    own = comparison.own_value(secret_key)
    sets_its_own = any(leaf[: len(secret_key)] == secret_key for leaf, _ in _leaves(file.data))
    return "" if own is None or sets_its_own else f"your own {written(secret_key)} goes there"


def _setting(key: Key, value: object, warning: str) -> Setting:
    """Return a value as it is shown; a warning that arises later makes it another setting."""
    text = json.dumps(value, default=str)
    digest = hashlib.sha256(json.dumps([key, text, warning]).encode()).hexdigest()
    shown = "(a secret)" if _pattern(key) in SECRET_KEYS else text
    return Setting(shown=f"{shown}  ({warning})" if warning else shown, digest=digest)


def _at_most(value: Any, own: Any) -> bool:
    """Return whether a limit is not above the user's; what cannot be compared counts as above."""
    if isinstance(own, str | Money):
        try:
            return Money.parse(value) <= Money.parse(own)
        except BadAmount:
            return False
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value <= own

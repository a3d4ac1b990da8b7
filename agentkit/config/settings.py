"""Settings, and where each of them came from.

Order: arguments, then environment (`AGENTKIT_…`), then `./agentkit.toml`, then
`~/.config/agentkit/config.toml`, then defaults.  `AGENTKIT_CONFIG` names one file to read instead
of those two.  Secrets are named by the environment variable that holds them and never stand in a
file.  A real network is set in a file or by argument only.

`./agentkit.toml` is there because somebody made the working directory, who may be a stranger: what
of it can do harm (`config.consent`) counts only once a person trusts the folder (`config.trust`).
A file that is named is trusted by being named.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    AliasChoices,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from agentkit.config import trust
from agentkit.config.consent import Setting, settings_needing_consent
from agentkit.config.reading import (
    SettingsFile,
    parse_settings,
    read_settings_file,
)
from agentkit.config.secrets import SecretIn, SecretInFile, SecretInKeyring, Section, SettingsPath
from agentkit.config.serving import ServeSettings
from agentkit.errors import ConfigError, Untrusted
from agentkit.market.allowance import Allowance
from agentkit.money import Money, Rate

LOCAL_FILE = Path("agentkit.toml")
NEVER_SENT = "AGENTKIT_PASSPHRASE"
USER_FILE = trust.USER_FOLDER / "config.toml"


def _addresses(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Return addresses as they were given; raises ValueError for one that is none."""
    for url in (given,) if isinstance(given, str) else given:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} has no http:// or https://")
    return given


def _contract(given: str) -> str:
    """Return the address of an account as it was given; raises ValueError for one that is none."""
    if given and not re.fullmatch(r"0x[0-9a-fA-F]{40}", given):
        raise ValueError(f"{given!r} is not a valid address: 0x and 40 hex digits")
    return given


class WalletSettings(Section):
    """Where the wallet's keystore lies, what opens it, and which process has its key.

    `unlock`: `{ env = "NAME" }`, `{ file = "path" }` or `{ keyring = "service" }`; without it,
    AGENTKIT_PASSPHRASE.  `signer`: `here`, `process` (one of its own, started with the agent), or
    the path of the socket of one that `agentkit wallet signer` serves.
    """

    keystore: SettingsPath = Path("~/.config/agentkit/wallet.json")
    unlock: SecretIn | SecretInFile | SecretInKeyring | None = None
    signer: str = "here"


class ChainSettings(Section):
    """How a real network's chain is reached, and where our contracts stand on it.

    `token_name` and `finality` (blocks after which a receipt counts) replace what is known of the
    network.
    """

    rpc: str = ""
    channels: str = ""
    escrow: str = ""
    anchor: str = ""
    token_name: str = ""
    finality: int | None = Field(default=None, ge=1)


class NetworkSettings(Section):
    """A network that the wallet may pay on: one of its user's own, or one that ships, completed.

    `rpc`: an address or several; where one does not answer, the next is asked.  `token`,
    `token_name` and `token_version`: USDC there, and the name and version of its EIP-712 domain.
    `finality`: blocks after which a receipt counts.  `coin` pays for gas.  `gas_oracle`: the
    contract that says what a transaction's data costs, on rollups that charge for it.
    `facilitator`: who settles for a node that sells there.
    """

    chain_id: int | None = Field(default=None, ge=1)
    rpc: tuple[str, ...] = ()
    token: str = ""
    token_name: str = ""
    token_version: str = ""
    finality: int | None = Field(default=None, ge=1)
    coin: str = ""
    gas_oracle: str = ""
    facilitator: str = ""

    @field_validator("rpc", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @field_validator("rpc", "facilitator")
    @classmethod
    def _with_scheme(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return _addresses(given)

    @field_validator("token", "gas_oracle")
    @classmethod
    def _an_address(cls, given: str) -> str:
        return _contract(given)


class ProviderSettings(Section):
    """A provider: its adapter (its own name by default), addresses, key, configured prices.

    `models`: its name of each model; `accepts`: by the model, other names under which it answers.
    `overhead_tokens`: tokens that it adds to every question, such as a system prompt of its own;
    `reasoning_tokens`: those that it may count in an answer beyond its limit.
    """

    adapter: str = ""
    enabled: bool = True
    url: str = ""
    urls: tuple[str, ...] = ()
    api_key: SecretIn | SecretStr | None = None
    price: dict[str, Rate] = {}
    models: dict[str, str] = {}
    accepts: dict[str, tuple[str, ...]] = {}
    overhead_tokens: int = Field(default=0, ge=0, le=10_000_000)
    reasoning_tokens: int = Field(default=0, ge=0, le=10_000_000)
    payee: str = ""
    label: str = ""

    @field_validator("url", "urls")
    @classmethod
    def _with_scheme(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return _addresses(given)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, `url` first."""
        return (self.url, *self.urls) if self.url else self.urls

    def key(self) -> str:
        """Return the API key, empty when none is set."""
        if isinstance(self.api_key, SecretIn):
            return self.api_key.read()
        return self.api_key.get_secret_value() if self.api_key else ""


class PaymentSettings(Section):
    """Which tasks are paid out of escrow, who decides there, and when channels are closed.

    `escrow_from`: at most of a task from which its price is locked for it alone; `escrow_after`:
    seconds it lasts.  `arbiter`: the address that decides about refused results; without one, no
    task above `arbiter_above` is paid out of escrow.  `close_idle`: days after which a channel
    that nothing was paid on is closed when runs are resumed.
    """

    escrow_from: Money = Money.parse("1 USDC")
    escrow_after: float = Field(default=600.0, gt=0)
    arbiter: str = ""
    arbiter_above: Money = Money.parse("10 USDC")
    close_idle: float = Field(default=7.0, gt=0)

    @field_validator("arbiter")
    @classmethod
    def _an_address(cls, given: str) -> str:
        return _contract(given)


class MemorySettings(Section):
    """Which gateways keep the sealed log, and how it gets there.

    `upload`: `embedded` (items posted to the gateways themselves; the default without `network`),
    `turbo` (to the upload service at the address `turbo`), `l1` (bundles in transactions of the
    AR wallet in the file `jwk`, every `interval` seconds).  `pay`: `credits` at the service, or
    `x402` from this wallet.  `per_upload` and `total` limit what uploads may cost, in AR for `l1`
    and in USDC for x402.  A purchase from `seal_before_pay` on waits until the log is on Arweave,
    one from `stable_before_pay` on until it is there for good.

    Artifacts up to 256 KiB are sealed with the log.  Larger ones go to Arweave as items of their
    own up to `arweave_up_to` bytes (without it: all on the embedded network, none on a real one),
    else to the Kubo node whose RPC is at `ipfs`, else they stay on this machine.

    `encryption`: `wallet` (the key alone opens what is sealed, so it alone restores it), or `shred`
    (a local key file besides: without it nothing opens, and deleting it destroys all).

    `head_anchor`: with `evm`, a hash over all that is sealed stands in the contract `chain.anchor`,
    moved on at most every `anchor_interval` seconds, before the first purchase of a process and at
    its end; so gateways that hide the newest steps, and a second machine with this key, are found.
    """

    gateways: tuple[str, ...] = ()
    encryption: Literal["wallet", "shred"] = "wallet"
    upload: Literal["embedded", "l1", "turbo"] | None = None
    turbo: str = "https://upload.ardrive.io"
    jwk: SettingsPath | None = None
    pay: Literal["credits", "x402"] = "credits"
    per_upload: Money | None = None
    total: Money | None = None
    interval: float = Field(default=600.0, ge=0)
    head_anchor: Literal["evm"] | None = None
    anchor_interval: float = Field(default=600.0, ge=0)
    seal_before_pay: str | None = None
    stable_before_pay: str | None = None
    arweave_up_to: int | None = Field(default=None, ge=0)
    ipfs: str = ""

    def total_in(self, symbol: str) -> Money | None:
        """Return the limit of all uploads where it is one in this currency."""
        return self.total if self.total and self.total.asset.symbol == symbol else None

    @field_validator("gateways", "turbo", "ipfs")
    @classmethod
    def _with_scheme(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return _addresses(given)


class ApprovalSettings(Section):
    """Who is asked before a node is bought that can come to more than `above`, or is marked.

    `ask`: `console`, or the address of a webhook; `token` goes along as a bearer token.
    """

    above: Money | None = None
    ask: str = "console"
    token: SecretIn | None = None
    patience: float = Field(default=300.0, gt=0)


class Settings(BaseSettings):
    """Everything that can be set; `origins` says from where each key came.

    The wallet pays on its home `network` and on all of `networks` that have an address.  With `usd`
    set to `usdc`, USDC of all of these is worth the same, and a budget counts it together.
    """

    model_config = SettingsConfigDict(
        env_prefix="AGENTKIT_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # an empty path would be the working directory
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    network: str | None = None
    home: SettingsPath = Path("~/.local/share/agentkit")
    network_home: SettingsPath = Field(
        default=Path("~/.local/state/agentkit/network"),
        validation_alias=AliasChoices("network_home", "AGENTKIT_NETWORK"),
    )
    passphrase: SecretStr = SecretStr("")
    wallet: WalletSettings = WalletSettings()
    chain: ChainSettings = ChainSettings()
    networks: dict[str, NetworkSettings] = {}
    usd: Literal["usdc"] | None = None
    allowance: Allowance = Allowance()
    providers: dict[str, ProviderSettings] = {}
    payments: PaymentSettings = PaymentSettings()
    memory: MemorySettings = MemorySettings()
    approval: ApprovalSettings = ApprovalSettings()
    serve: ServeSettings = ServeSettings()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def secret(self) -> str:
        """Return the wallet's passphrase, "" when none is set; raises ConfigError."""
        known = self.wallet.unlock
        return known.read() if known else self.passphrase.get_secret_value()

    @property
    def origins(self) -> dict[str, str]:
        """Where each key that was set came from."""
        return self._origins

    @model_validator(mode="after")
    def _passphrase_stays_here(self) -> Self:
        """Refuse to send what opens the wallet to a provider or a webhook."""
        unlock = self.wallet.unlock
        opens_wallet = {NEVER_SENT, unlock.env.upper() if isinstance(unlock, SecretIn) else ""}
        sent = {
            f"providers.{name}.api_key": known.api_key for name, known in self.providers.items()
        }
        sent["approval.token"] = self.approval.token
        sent.update(self.serve.secrets)
        for key, secret in sent.items():
            if isinstance(secret, SecretIn) and secret.env.strip().upper() in opens_wallet:
                raise ConfigError(
                    f"{key} names {secret.env}, which opens the wallet and is never sent",
                    hint=f"name another variable in {key}",
                )
        return self

    @classmethod
    def read(cls, file: Path | None = None, **arguments: Any) -> Settings:
        """Read the settings; raises ConfigError naming the key and where it was found.

        Raises Untrusted when `./agentkit.toml` sets what counts only once its folder is trusted.
        Whether a setting is valid is said first, so nobody is asked to trust a spelling mistake.
        """
        named = _named_files(file)
        if named is not None:
            return cls._merged(named, arguments)
        folder_file = read_settings_file(LOCAL_FILE)
        if folder_file is None:
            return cls.read_own(**arguments)
        settings, needed = cls._judged(folder_file, arguments)
        trust.check_trust(folder_file, needed)
        return settings

    @classmethod
    def read_own(cls, **arguments: Any) -> Settings:
        """Read the settings without `./agentkit.toml`; raises ConfigError."""
        return cls._merged(_existing(USER_FILE.expanduser()), arguments)

    @classmethod
    def consent_request(cls, folder: Path) -> Untrusted | None:
        """Return what a person would consent to in a folder, None where nothing needs consent.

        Raises ConfigError when the folder has no settings, or they are not valid.
        """
        file = read_settings_file(folder / LOCAL_FILE)
        if file is None:
            raise ConfigError(
                f"there is no {LOCAL_FILE} in {folder}",
                hint="name the folder whose settings you trust",
            )
        _, needed = cls._judged(file, {})
        return trust.consent_request(file, needed) if needed else None

    @classmethod
    def trust_written(cls, path: Path, text: str) -> None:
        """Renew consent to a folder whose settings this process just wrote as `text`.

        Only what the text says is consented to, whatever became of the file since.
        """
        folder = path.parent.resolve()
        file = SettingsFile(path=path, folder=folder, data=parse_settings(text.encode(), path))
        _, needed = cls._judged(file, {})
        trust.forget(folder)
        if needed:
            trust.grant(trust.consent_request(file, needed))

    @classmethod
    def _judged(
        cls, file: SettingsFile, arguments: dict[str, Any]
    ) -> tuple[Settings, dict[str, Setting]]:
        """Return the settings with a folder's file, and which of the file's need consent."""
        own_files = _existing(USER_FILE.expanduser())
        own = cls._merged(own_files, arguments)
        settings = cls._merged([file, *own_files], arguments)
        needed = settings_needing_consent(file, own, real=settings.network is not None)
        return settings, needed

    @classmethod
    def _merged(cls, files: list[SettingsFile], arguments: dict[str, Any]) -> Settings:
        """Return arguments, environment and files as one; raises ConfigError naming the key."""
        sources: dict[str, str] = {}

        class Sourced(cls):  # type: ignore[valid-type,misc]  # sources are fixed per class
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,
                file_secret_settings: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                """Return the sources in the order in which they win; notes the origin of keys."""
                tomls = [_Toml(settings_cls, file) for file in files]
                env = _Environment(settings_cls)
                named = [("argument", init_settings), ("environment", env)]
                named += [(str(toml.path), toml) for toml in tomls]
                for name, source in reversed(named):
                    sources.update(dict.fromkeys(_keys(source), name))
                return (init_settings, env, *tomls)

        try:
            settings = Sourced(**arguments)
        except ValidationError as error:
            raise _config_error(error, sources) from error
        settings._origins.update(sources)
        return settings


def _named_files(named: Path | None) -> list[SettingsFile] | None:
    """Return the files that somebody named, the first one wins; None where nobody named one.

    Raises ConfigError when one is not there.
    """
    only = os.environ.get("AGENTKIT_CONFIG")
    asked = {"--config": named, "AGENTKIT_CONFIG": Path(only) if only else None}
    for where, path in asked.items():
        if path is not None and not path.is_file():
            raise ConfigError(f"there is no file {path}", hint=f"check the path in {where}")
    if only:
        return _existing(named or Path(only))
    return _existing(named, USER_FILE.expanduser()) if named else None


def _existing(*paths: Path) -> list[SettingsFile]:
    files = [read_settings_file(path) for path in paths]
    return [file for file in files if file is not None]


class _Environment(EnvSettingsSource):
    """The environment, which cannot set a real network: `AGENTKIT_NETWORK` is a folder."""

    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__call__().items() if key != "network"}


class _Toml(InitSettingsSource):
    """What a TOML file says; a key that only the environment may set is refused in it."""

    def __init__(self, settings: type[BaseSettings], file: SettingsFile) -> None:
        self.path = file.path
        if "passphrase" in file.data:
            raise ConfigError(
                f"{file.path} holds a passphrase",
                hint="take it out of the file and set AGENTKIT_PASSPHRASE",
            )
        super().__init__(settings, file.data)


def _keys(source: PydanticBaseSettingsSource) -> list[str]:
    try:
        return list(source())
    except (ValueError, ValidationError):
        return []


def _config_error(wrong: ValidationError, sources: dict[str, str]) -> ConfigError:
    """Return what is wrong with a setting, where it stands, and what to do about it."""
    first = wrong.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    origin = sources.get(str(first["loc"][0]) if first["loc"] else "", "the settings")
    unknown = first["type"] == "extra_forbidden"
    said = "there is no such key" if unknown else first["msg"].removeprefix("Value error, ")
    return ConfigError(
        f"{where or 'a setting'} in {origin}: {said}",
        hint=f"take {where!r} out, or mend its spelling" if unknown else f"mend {where!r}",
    )

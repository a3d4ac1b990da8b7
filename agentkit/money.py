"""Money in integer base units; an amount written as a float cannot exist.

`"1 USDC"` is a symbol until it is bound to a network: `Asset.bind` gives it a chain and a token
address, and amounts of differently bound assets never mix.  Asset ids follow CAIP-19.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeGuard

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from agentkit.errors import BadAmount

DECIMALS = {"USDC": 6, "ETH": 18, "POL": 18, "AVAX": 18, "AR": 12}
"""Symbols that can be written without a token's own facts, with their decimal places."""

# 78 digits hold 2^256; longer text is refused before it is turned into a number.
_AMOUNT = re.compile(
    r"(?P<whole>[0-9]{1,78})(\.(?P<part>[0-9]{1,78}))? (?P<symbol>[A-Z]{2,8})( (?P<id>\S+))?"
)
_ASSET_ID = re.compile(r"(?P<network>[a-z0-9]+:[A-Za-z0-9]+)/(?P<token>\S+)")


MAX_TEXT = 300
"""Characters of an amount or a unit price; others send them, and digits cost more than one each."""


def _is_short(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and len(text) <= MAX_TEXT


@dataclass(frozen=True, slots=True)
class Asset:
    """A currency: a symbol, and once bound the network (CAIP-2) and token it lives on."""

    symbol: str
    decimals: int
    network: str = ""
    token: str = ""

    @classmethod
    def named(cls, symbol: str) -> Asset:
        """Return the unbound asset with this symbol; raises BadAmount for an unknown one."""
        if symbol not in DECIMALS:
            raise BadAmount(f"unknown asset {symbol!r}; known are {', '.join(sorted(DECIMALS))}")
        return cls(symbol, DECIMALS[symbol])

    @property
    def id(self) -> str:
        """CAIP-19 id of a bound asset, the symbol of an unbound one."""
        return f"{self.network}/{self.token}" if self.network else self.symbol

    def bind(self, network: str, token: str) -> Asset:
        """Return this asset on `network` (`eip155:8453`) as `token` (`erc20:0x…`, `slip44:60`)."""
        return replace(self, network=network, token=token)

    def zero(self) -> Money:
        return Money(0, self)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one asset, never negative, in the asset's smallest units."""

    units: int
    asset: Asset

    def __post_init__(self) -> None:
        if isinstance(self.units, bool) or not isinstance(self.units, int):
            raise BadAmount(f"{self.units!r} is not a whole number of base units")
        if self.units < 0:
            raise BadAmount(f"{self.units} is negative")

    @classmethod
    def parse(cls, text: str | Money) -> Money:
        """Read `"0.05 USDC"`; raises BadAmount for anything else, floats and NaN included."""
        if isinstance(text, Money):
            return text
        found = _AMOUNT.fullmatch(text.strip()) if _is_short(text) else None
        if not found:
            raise BadAmount(f"{str(text)[:MAX_TEXT]!r} is not an amount")
        asset = Asset.named(found["symbol"])
        if found["id"]:
            place = _ASSET_ID.fullmatch(found["id"])
            if not place:
                raise BadAmount(f"{found['id']!r} is not an asset id")
            asset = asset.bind(place["network"], place["token"])
        part = (found["part"] or "").rstrip("0")
        if len(part) > asset.decimals:
            raise BadAmount(f"{text!r} has more than {asset.decimals} decimal places")
        return cls(int(found["whole"] + part.ljust(asset.decimals, "0")), asset)

    def bind(self, asset: Asset) -> Money:
        """Return this amount in `asset`, which must have the same symbol and decimals."""
        if self.asset == asset:
            return self
        if self.asset.network or (self.asset.symbol, self.asset.decimals) != (
            asset.symbol,
            asset.decimals,
        ):
            raise BadAmount(f"{self} is not an amount of {asset.symbol}")
        return Money(self.units, asset)

    def counted_in(self, asset: Asset) -> Money:
        """Return as many units of an equal currency on another network.

        Only for currencies that the user has said to be equal (the setting `usd`).  Raises
        BadAmount for another symbol, or other decimals.
        """
        return Money(self.units, replace(self.asset, network="", token="")).bind(asset)

    def same(self, other: Money) -> int:
        """Return the units of `other`; raises BadAmount when its asset is another one."""
        if self.asset != other.asset:
            raise BadAmount(f"{self!r} and {other!r} are amounts of different assets")
        return other.units

    def __add__(self, other: Money) -> Money:
        return Money(self.units + self.same(other), self.asset)

    def __sub__(self, other: Money) -> Money:
        return Money(self.units - self.same(other), self.asset)

    def __mul__(self, times: int) -> Money:
        if isinstance(times, bool) or not isinstance(times, int):
            raise BadAmount(f"an amount cannot be multiplied by {times!r}")
        return Money(self.units * times, self.asset)

    def __lt__(self, other: Money) -> bool:
        return self.units < self.same(other)

    def __le__(self, other: Money) -> bool:
        return self.units <= self.same(other)

    def __gt__(self, other: Money) -> bool:
        return self.units > self.same(other)

    def __ge__(self, other: Money) -> bool:
        return self.units >= self.same(other)

    def __bool__(self) -> bool:
        return self.units > 0

    @property
    def number(self) -> str:
        """The amount as plain decimal digits, at least two places: `0.0123`."""
        whole, part = divmod(self.units, 10**self.asset.decimals)
        digits = f"{part:0{self.asset.decimals}d}".rstrip("0")
        return f"{whole}.{digits:0<2}"

    @property
    def rough(self) -> str:
        """The amount rounded to six places, for the eye only: `0.000458 ETH`."""
        coarse = 10 ** max(0, self.asset.decimals - 6)
        units = (self.units + coarse // 2) // coarse * coarse
        return str(Money(units, self.asset))

    def __str__(self) -> str:
        return f"{self.number} {self.asset.symbol}"

    def __repr__(self) -> str:
        return f"Money({self.encode()!r})"

    def encode(self) -> str:
        """Return text that `parse` reads back to an equal value, binding included."""
        return f"{self} {self.asset.id}" if self.asset.network else str(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(cls.encode)
        )


_PER = {"": 1, "1": 1, "1K": 1000, "1M": 10**6, "1B": 10**9}
_RATE = re.compile(r"(?P<amount>.+?) per (?P<count>1[KMB]?)? ?(?P<unit>[a-z]+?)s?")


@dataclass(frozen=True, slots=True)
class Rate:
    """A unit price: `amount` for every `per` units, kept exact until an attempt is priced."""

    amount: Money
    per: int
    unit: str

    @classmethod
    def parse(cls, text: str | Rate) -> Rate:
        """Read `"0.10 USDC per 1M tokens"` or `"0.002 USDC per row"`."""
        if isinstance(text, Rate):
            return text
        found = _RATE.fullmatch(text.strip()) if _is_short(text) else None
        if not found:
            raise BadAmount(
                f"{str(text)[:MAX_TEXT]!r} is not a unit price",
                hint='write it as "0.10 USDC per 1M tokens"',
            )
        return cls(Money.parse(found["amount"]), _PER[found["count"] or ""], found["unit"])

    def bind(self, asset: Asset) -> Rate:
        return replace(self, amount=self.amount.bind(asset))

    def times(self, count: int) -> Fraction:
        """Return the exact price of `count` units in base units."""
        return Fraction(self.amount.units * count, self.per)

    def encode(self) -> str:
        label = {per: name for name, per in _PER.items()}[self.per]
        return f"{self.amount.encode()} per {label} {self.unit}s"

    __str__ = encode

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(cls.encode)
        )


def rounded_up(asset: Asset, exact: Fraction) -> Money:
    """Return `exact` base units as Money, rounded up; called once per attempt."""
    return Money(-(-exact.numerator // exact.denominator), asset)

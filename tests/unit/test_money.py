import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agentkit.errors import BadAmount
from agentkit.money import DECIMALS, Asset, Money, Rate, rounded_up

BOUND = Asset.named("USDC").bind("eip155:1337", "erc20:0x" + "ab" * 20)


@pytest.mark.parametrize(
    "wrong",
    [
        0.05,
        float("nan"),
        5,
        True,
        None,
        "",
        "0.05",
        "USDC",
        "0.05 usdc",
        "0.05 DOGE",
        "-1 USDC",
        "1e3 USDC",
        "1,000 USDC",
        "NaN USDC",
        "Infinity USDC",
        "0.0000001 USDC",
        "٣ USDC",
        "1 USDC eip155",
        "9" * 79 + " USDC",
    ],
)
def test_what_is_no_amount_is_refused_with_a_hint(wrong: object) -> None:
    with pytest.raises(BadAmount) as refused:
        Money.parse(wrong)
    assert refused.value.hint
    assert isinstance(refused.value, TypeError)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("units", [0.5, True, -1, "1"])
def test_units_are_whole_numbers_of_at_least_zero(units: object) -> None:
    with pytest.raises(BadAmount, match=r"not a whole number|is negative"):
        Money(units, BOUND)  # type: ignore[arg-type]


@given(st.integers(0, 2**256), st.sampled_from(sorted(DECIMALS)), st.booleans())
def test_every_amount_reads_back_to_itself(units: int, symbol: str, bound: bool) -> None:
    asset = Asset.named(symbol)
    asset = asset.bind("eip155:1", "erc20:0x" + "00" * 20) if bound else asset
    assert Money.parse(Money(units, asset).encode()) == Money(units, asset)


def test_amounts_print_plainly() -> None:
    assert str(Money.parse("0.0123 USDC")) == "0.0123 USDC"
    assert str(Money.parse("7 USDC")) == "7.00 USDC"
    assert str(Money.parse("0.5 ETH")) == "0.50 ETH"


def test_amounts_of_different_assets_never_mix() -> None:
    here, elsewhere = Money(1, BOUND), Money(1, Asset.named("USDC"))
    for mix in (
        lambda: here + elsewhere,
        lambda: here - elsewhere,
        lambda: here < elsewhere,
        lambda: here >= elsewhere,
    ):
        with pytest.raises(BadAmount, match="amounts of different assets"):
            mix()
    assert here != elsewhere


def test_amounts_are_ordered_and_counted_by_their_units() -> None:
    less, more = Money(1, BOUND), Money(2, BOUND)
    assert [less < more, less < less, more < less] == [True, False, False]
    assert [less <= more, less <= less, more <= less] == [True, True, False]
    assert [more > less, less > less, less > more] == [True, False, False]
    assert [more >= less, less >= less, less >= more] == [True, True, False]
    assert [bool(less), bool(BOUND.zero())] == [True, False]
    assert less + more == Money(3, BOUND)
    assert more - less == less
    assert more * 3 == Money(6, BOUND)
    assert more * 0 == BOUND.zero()


@pytest.mark.parametrize("times", [True, 1.5, "2", None])
def test_an_amount_is_multiplied_by_whole_numbers_only(times: object) -> None:
    with pytest.raises(BadAmount, match="cannot be multiplied"):
        Money(1, BOUND) * times  # type: ignore[operator]


def test_values_hold_amounts_as_text_and_read_them_back() -> None:
    class Priced(BaseModel):
        amount: Money
        rate: Rate

    priced = Priced(amount=Money(5, BOUND), rate=Rate.parse("1 USDC per 1K rows").bind(BOUND))
    text = priced.model_dump_json()
    assert json.loads(text) == {"amount": priced.amount.encode(), "rate": priced.rate.encode()}
    assert Priced.model_validate_json(text) == priced
    with pytest.raises(ValidationError):
        Priced.model_validate({"amount": 5, "rate": "1 USDC per row"})


def test_a_unit_price_is_bound_as_its_amount_is() -> None:
    rate = Rate.parse("0.5 USDC per 1M tokens")
    assert rate.bind(BOUND) == Rate(Money(500_000, BOUND), 10**6, "token")
    assert rounded_up(BOUND, rate.times(3)) == Money(2, BOUND)


def test_binding_keeps_the_amount_and_refuses_another_asset() -> None:
    assert Money.parse("1 USDC").bind(BOUND).units == 1_000_000
    with pytest.raises(BadAmount, match="is not an amount of USDC"):
        Money.parse("1 ETH").bind(BOUND)
    with pytest.raises(BadAmount):
        Money(1, BOUND).bind(Asset.named("USDC").bind("eip155:1", "erc20:0x00"))


def test_an_equal_currency_has_the_same_symbol_and_decimals() -> None:
    base = Asset.named("USDC").bind("eip155:8453", "erc20:0x1")
    optimism = Asset.named("USDC").bind("eip155:10", "erc20:0x2")
    assert Money(5, base).counted_in(optimism) == Money(5, optimism)
    assert Money(5, base).counted_in(base) == Money(5, base)
    for other in (Asset.named("ETH"), Asset("USDC", 18, "eip155:56", "erc20:0x3")):
        with pytest.raises(BadAmount):
            Money(5, base).counted_in(other)


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(BadAmount):
        Money(1, BOUND) - Money(2, BOUND)


@given(st.integers(0, 10**12), st.integers(0, 10**9))
def test_rates_are_exact_and_rounded_up_once(micro: int, count: int) -> None:
    rate = Rate.parse(f"{Decimal(micro) / 10**6:.6f} USDC per 1M tokens")
    owed = rounded_up(rate.amount.asset, rate.times(count))
    assert owed.units * 10**6 >= micro * count > (owed.units - 1) * 10**6


@pytest.mark.parametrize("wrong", ["0.1 USDC", "0.1 per 1M tokens", "0.1 USDC per 2M tokens", 0.1])
def test_what_is_no_unit_price_is_refused(wrong: object) -> None:
    with pytest.raises(BadAmount, match=r"is not a unit price|is not an amount") as refused:
        Rate.parse(wrong)
    assert refused.value.hint


def test_unit_prices_read_back_to_themselves() -> None:
    for text in ("0.10 USDC per 1M tokens", "0.002 USDC per 1 row", "1 USDC per 1K rows"):
        rate = Rate.parse(text)
        assert Rate.parse(rate.encode()) == rate


@pytest.mark.parametrize("text", ["1" * 5000 + " USDC", "1 USDC" + " per a" * 100_000, "x" * 999])
def test_a_text_without_end_is_told_in_a_line(text: str) -> None:
    for read in (Money.parse, Rate.parse):
        with pytest.raises(BadAmount) as refused:
            read(text)
        assert len(str(refused.value)) < 400

"""Policies: functions that narrow or order offers, list in, list out.

A policy is any callable from a list of offers to a list of some of them; the first of the list is
preferred.  Offers arrive ordered by the plan's objective.  `first >> second` applies both, `first
| second` the second only where the first leaves nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from agentkit.errors import ConfigError
from agentkit.market.offer import Offer
from agentkit.money import Money

Choose = Callable[[list[Offer]], list[Offer]]


log = logging.getLogger("agentkit")


@dataclass(frozen=True)
class Pattern:
    """A name or glob in a policy, and which verb it was given to."""

    verb: Literal["allow", "deny", "prefer"]
    text: str

    @property
    def provider(self) -> str:
        """The part about the provider, without that about one of its nodes."""
        return self.text.partition("/")[0]

    @property
    def is_glob(self) -> bool:
        return any(character in self.provider for character in "*?[")


@dataclass(frozen=True)
class Policy:
    """A named function on offers that composes with others; the name explains rejections.

    `stages` are the policies that it applies one after the other, none where it is one itself.
    `patterns` are the names of providers that it or a part of it is about.
    """

    name: str
    choose: Choose
    stages: tuple[Choose, ...] = ()
    patterns: tuple[Pattern, ...] = ()

    def __call__(self, offers: list[Offer]) -> list[Offer]:
        return self.choose(offers)

    def __rshift__(self, then: Choose) -> Policy:
        return _in_turn(self, then)

    def __rrshift__(self, first: Choose) -> Policy:
        return _in_turn(first, self)

    def __or__(self, otherwise: Choose) -> Policy:
        return Policy(
            f"{self.name} | {name_of(otherwise)}",
            lambda offers: self(offers) or otherwise(offers),
            patterns=(*self.patterns, *patterns_of(otherwise)),
        )

    def __str__(self) -> str:
        return self.name


def _in_turn(first: Choose, then: Choose) -> Policy:
    name = f"{name_of(first)} >> {name_of(then)}"
    stages = (*stages_of(first), *stages_of(then))
    patterns = (*patterns_of(first), *patterns_of(then))
    return Policy(name, lambda offers: then(first(offers)), stages, patterns)


def patterns_of(policy: Choose) -> tuple[Pattern, ...]:
    """Return the names of providers that a policy is about, none for a plain function."""
    return policy.patterns if isinstance(policy, Policy) else ()


def check_patterns(policy: Choose, providers: Collection[str]) -> None:
    """Raise ConfigError for a name in `deny` or `allow` that no configured provider has.

    A denied provider whose name was misspelt would be paid.  Where only a preference fits nobody,
    or a glob in `deny`, which may be there for providers to come, that is logged.
    """
    for pattern in patterns_of(policy):
        if any(fnmatchcase(name, pattern.provider) for name in providers):
            continue
        what = f"{pattern.verb}({pattern.text}) fits no configured provider"
        if pattern.verb == "prefer" or (pattern.verb == "deny" and pattern.is_glob):
            log.warning("%s", what)
        else:
            raise ConfigError(what, hint=f"write one of: {', '.join(sorted(providers))}")


def stages_of(policy: Choose) -> tuple[Choose, ...]:
    """Return the policies that one applies one after the other, itself where it is one."""
    return (policy.stages if isinstance(policy, Policy) else ()) or (policy,)


def name_of(policy: Choose) -> str:
    """Return what to call a policy in a plan's explanations."""
    return str(policy) if isinstance(policy, Policy) else getattr(policy, "__name__", "policy")


def effective_price(offer: Offer) -> float:
    """Return what an offer comes to when what it fails to deliver has to be bought elsewhere."""
    return offer.price.units / offer.reputation


cheapest = Policy("cheapest", lambda offers: sorted(offers, key=effective_price))
fastest = Policy("fastest", lambda offers: sorted(offers, key=lambda o: o.eta))
attested = Policy("attested", lambda offers: [o for o in offers if "tee" in o.evidence])


def allow(*patterns: str) -> Policy:
    """Keep only providers whose name fits one of the patterns."""
    return Policy(
        f"allow({', '.join(patterns)})",
        lambda offers: [o for o in offers if fits(o, patterns)],
        patterns=tuple(Pattern("allow", text) for text in patterns),
    )


def deny(*patterns: str) -> Policy:
    """Leave out providers whose name fits one of the patterns."""
    return Policy(
        f"deny({', '.join(patterns)})",
        lambda offers: [o for o in offers if not fits(o, patterns)],
        patterns=tuple(Pattern("deny", text) for text in patterns),
    )


def max_price(amount: str | Money) -> Policy:
    """Leave out offers whose at most, for one purchase, is above `amount`."""
    limit = Money.parse(amount)
    return Policy(
        f"max_price({limit})",
        lambda offers: [o for o in offers if o.at_most.units <= limit.bind(o.at_most.asset).units],
    )


def spread(k: int) -> Policy:
    """Put offers of `k` different providers first, the best of each.

    So a node and its alternates do not all depend on one of them.
    """
    if k < 1:
        raise ConfigError(f"spread({k}) is not a valid spread", hint="write spread(2)")

    def choose(offers: list[Offer]) -> list[Offer]:
        first: dict[str, Offer] = {}
        for offer in offers:
            first.setdefault(offer.provider, offer)
        ahead = list(first.values())[:k]
        return [*ahead, *(offer for offer in offers if offer not in ahead)]

    return Policy(f"spread({k})", choose)


def prefer(pattern: str, within: str = "0%") -> Policy:
    """Put a provider first where its price is within a percentage of the lowest."""
    percent = _percent(within)

    def choose(offers: list[Offer]) -> list[Offer]:
        if not offers:
            return []
        most = min(o.price.units for o in offers) * (100 + percent)
        return sorted(
            offers, key=lambda o: not (fits(o, (pattern,)) and o.price.units * 100 <= most)
        )

    about = (Pattern("prefer", pattern),)
    return Policy(f"prefer({pattern}, within={within})", choose, patterns=about)


def fits(offer: Offer, patterns: tuple[str, ...]) -> bool:
    """Whether an offer's provider, or provider/node label, fits one of the globs."""
    return any(fnmatchcase(name, p) for p in patterns for name in (offer.provider, offer.label))


def _percent(given: object) -> int:
    text = str(given)
    number = text.removesuffix("%")
    if not (text.endswith("%") and number.isdigit()):
        raise ConfigError(f"{text!r} is not a percentage", hint='write within="10%"')
    return int(number)


_PLAIN = {"cheapest": cheapest, "fastest": fastest, "attested": attested}
_CALL = re.compile(r"(?P<name>[a-z_]+)(\((?P<arguments>[^()]*)\))?")
_ARGUMENT = re.compile(
    r"""\s*(?:(?P<keyword>[a-z]+)\s*=\s*)?"""
    r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^"',=]*?))\s*"""
)


def parse(text: str) -> Policy:
    """Read a policy as the command line takes it: `deny(bad-*) >> prefer(native, 10%)`.

    Names may stand in quotes, as in Python.  `>>` binds looser than `|`.  Raises ConfigError.
    """
    stages = [_alternatives(stage) for stage in text.split(">>")]
    whole = stages[0]
    for stage in stages[1:]:
        whole = whole >> stage
    return whole


def _alternatives(text: str) -> Policy:
    options = [_single(option.strip()) for option in text.split("|")]
    whole = options[0]
    for option in options[1:]:
        whole = whole | option
    return whole


def _single(text: str) -> Policy:
    """Read one policy of a chain, such as `deny(gaia)`; raises ConfigError."""
    found = _CALL.fullmatch(text)
    name = found["name"] if found else ""
    arguments = _arguments(found["arguments"] or "", text) if found else []
    if name in _PLAIN and not arguments:
        return _PLAIN[name]
    if name in ("allow", "deny") and arguments:
        return (allow if name == "allow" else deny)(*arguments)
    if name == "max_price" and len(arguments) == 1:
        return max_price(arguments[0])
    if name == "spread" and len(arguments) == 1 and arguments[0].isdigit():
        return spread(int(arguments[0]))
    if name == "prefer" and len(arguments) in (1, 2):
        return prefer(*arguments)
    raise _no_policy(text)


def _arguments(listed: str, text: str) -> list[str]:
    """Return the arguments of a call, without their quotes; only `within` may be named."""
    arguments = []
    for part in listed.split(",") if listed.strip() else ():
        found = _ARGUMENT.fullmatch(part)
        value = next(filter(None, found.group("double", "single", "bare")), "") if found else ""
        if found is None or not value or found["keyword"] not in (None, "within"):
            raise _no_policy(text)
        arguments.append(value)
    return arguments


def _no_policy(text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is not a policy", hint='write one like "deny(bad-*) >> prefer(native, 10%)"'
    )

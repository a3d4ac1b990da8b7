"""agentkit field: dry on the embedded network, its report, and what it does not do unasked."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import failed
from typer.testing import Result

from agentkit.cli.field import stall, verb
from agentkit.cli.field.canary import Mistaken
from agentkit.embedded import discovery
from agentkit.payments.channels import withdrawal

Cli = Callable[..., Result]

NAMES = list(verb.CANARIES)
UNTIL = 901
"""Seconds after which a silent seller's rest can be taken."""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[discovery.NetworkFile]:
    """An embedded network of this test's own, whose clock it may set forward."""
    folder = tmp_path / "alone"
    yield discovery.ensure(folder)
    discovery.stop(folder)


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["status"] for one in document["canaries"]}


def reasons(document: dict[str, Any]) -> str:
    return "\n".join(f"{one['name']}: {one['why']}" for one in document["canaries"])


@pytest.mark.timeout(240)
def test_every_canary_passes_dry_and_the_report_proves_itself(
    cli: Cli,
    alone: discovery.NetworkFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTKIT_NETWORK", str(tmp_path / "alone"))
    first = cli("field", "embedded", "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert list(statuses(told)) == NAMES
    waiting = next(one for one in told["canaries"] if one["name"] == "withdrawal")
    assert (waiting["status"], "comes back" in waiting["why"]) == ("skipped", True)
    assert "run `agentkit field` again" in waiting["why"]
    others = {name: status for name, status in statuses(told).items() if name != "withdrawal"}
    assert set(others.values()) == {"passed"}, reasons(told)
    escrow = next(one for one in told["canaries"] if one["name"] == "escrow")
    assert escrow["gas"] > 0
    paid = {one["name"]: one["paid"] for one in told["canaries"]}
    assert (paid["deposit"], paid["call"], paid["crash"]) == (stall.CALL,) * 3
    assert told["paid"] == sum(paid.values())

    file = tmp_path / "field-embedded.json"
    assert json.loads(file.read_text())["report"] == told
    checked = cli("field", "--check", str(file))
    assert checked.exit_code == 0
    assert told["wallet"] in checked.stdout
    assert "9 passed, 0 failed, 1 skipped" in checked.stdout
    check_secrets(file.read_text(), tmp_path)

    later(alone, UNTIL)
    real = withdrawal.time.time
    monkeypatch.setattr(withdrawal.time, "time", lambda: real() + UNTIL)
    second = json.loads(cli("field", "embedded", "--json").stdout)
    assert statuses(second)["withdrawal"] == "passed", reasons(second)


def later(found: discovery.NetworkFile, seconds: int) -> None:
    """Set the network's chain forward."""
    for method, parameters in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {found.token}",
        }
        request = urllib.request.Request(found.network["rpc"], json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert "error" not in json.load(answer)


def check_secrets(text: str, folder: Path) -> None:
    """Nothing that stands in a key file, and no address of a service, is in a report."""
    keys = [*folder.rglob("key.json"), *folder.rglob("keys/*.json")]
    assert len(keys) > 2
    for key in keys:
        for value in strings(json.loads(key.read_text())):
            if len(value) >= 32 and "address" not in value:
                assert value.removeprefix("0x") not in text
    assert "http://" not in text
    assert str(folder) not in text


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name != "address":
                yield from strings(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.timeout(240)
@pytest.mark.parametrize("last", ["deposit", "crash"])
def test_the_next_field_run_finishes_what_one_left_that_died(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """It died before it was paid out, or in a call, whose channel is busy since."""
    few = {name: verb.CANARIES[name] for name in NAMES[: NAMES.index(last) + 1]}
    with monkeypatch.context() as dying:
        dying.setattr(verb, "CANARIES", few)
        dying.setattr(verb.channel_canaries.buyer, "kill_in_call", _die)
        cli("field", "embedded", "--json")
    told = json.loads(cli("field", "embedded", "--json").stdout)
    assert "failed" not in statuses(told).values(), reasons(told)
    assert statuses(told)["refund"] == "passed", reasons(told)


async def _die(process: Any, stall: Any) -> None:
    """End the field run while the process that buys is at work."""
    await stall.reached.wait()
    process.kill()
    await process.wait()
    raise Mistaken("the field run dies here")


def test_a_budget_is_never_exceeded(cli: Cli) -> None:
    told = json.loads(cli("field", "embedded", "--budget", "0.03 USDC", "--json").stdout)
    found = statuses(told)
    assert found["deposit"] == "passed", reasons(told)
    assert (found["call"], found["crash"], found["escrow"]) == ("skipped",) * 3
    assert "left of the budget" in reasons(told)
    assert found["refund"] == "passed", reasons(told)


def test_what_builds_on_what_failed_is_not_tried(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = verb.channel_canaries.questions

    def other(*arguments: Any) -> Any:
        first, *rest = asked(*arguments)
        return [type(first)(first.name, first.call, bytes(32)), *rest]

    monkeypatch.setattr(verb.channel_canaries, "questions", other)
    done = cli("field", "embedded", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    found = statuses(told)
    assert found["contract"] == "failed"
    assert "getChannelId answers" in told["canaries"][0]["why"]
    channel = ("deposit", "call", "crash", "claim", "refund", "withdrawal")
    assert {found[name] for name in channel} == {"skipped"}
    assert told["paid"] == next(o["paid"] for o in told["canaries"] if o["name"] == "escrow")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no network is named"),
        (("base",), "the settings are for embedded, not for base"),
        (("--check", "missing.json"), "missing.json"),
    ],
)
def test_what_cannot_be_tried_costs_nothing(
    cli: Cli, arguments: tuple[str, ...], words: str
) -> None:
    failed(cli("field", *arguments), 2, words)


def test_a_real_network_is_asked_about_before_anything_is_opened(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real.toml").write_text(
        'network = "base-sepolia"\n[chain]\nrpc = "http://127.0.0.1:9/secret"\n'
        '[allowance]\ngas = "0.001 ETH"\n'
    )

    def opened(*_: Any) -> Any:
        raise AssertionError("it was opened without consent")

    monkeypatch.setattr(verb, "open_parts", opened)
    real = ("field", "base-sepolia", "--config", str(tmp_path / "real.toml"))
    failed(cli(*real), 2, "at most 0.10 USDC", "0.001 ETH", "not a terminal")
    failed(cli(*real, "--budget", "0.05 USDC"), 2, "at most 0.05 USDC")
    told = cli(*real, "--yes")
    assert told.exit_code == 2
    assert "at most 0.10 USDC leaves the wallet" in told.stderr
    assert "no facilitator is named" in told.stderr

"""agentkit fetch, serve and facilitator: what a person sees, and what it costs them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.command_line import failed
from support.timing import limit
from typer.testing import Result

from agentkit.embedded import discovery

CHAT = "/v1/chat/completions"
QUESTION = json.dumps(
    {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "Greet the sea."}],
        "max_tokens": 6,
    }
)

Cli = Callable[..., Result]


@pytest.fixture
def node(network: discovery.NetworkFile) -> str:
    return str(network.nodes["fast"])


def test_the_price_is_shown_and_nothing_is_paid_without_a_yes(cli: Cli, node: str) -> None:
    asked = cli("fetch", node + CHAT, "--data", QUESTION, "--budget", "0.05 USDC")
    failed(asked, 2, "it can cost 0.0", "not a terminal")
    assert json.loads(cli("status", "--json").stdout)["runs"] == []


def test_a_paid_answer_says_what_it_cost(cli: Cli, node: str, tmp_path: Path) -> None:
    out = tmp_path / "answer.json"
    done = cli(
        *("fetch", node + CHAT, "--data", QUESTION, "--budget", "0.05 USDC", "--yes"),
        *("--json", "--out", str(out)),
    )
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == 200
    assert told["paid"].startswith("0.0000")
    assert json.loads(out.read_text())["choices"]
    (run,) = json.loads(cli("status", "--json").stdout)["runs"]
    assert run["run"] == told["run"]


def test_what_is_free_is_shown(cli: Cli, node: str) -> None:
    done = cli("fetch", node + "/node", "--budget", "0.05 USDC", "--json")
    told = json.loads(done.stdout)
    assert (told["status"], told["run"], told["paid"]) == (200, "", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ftp://x.example/",), "url"),
        (("http://127.0.0.1:9/",), "cannot be reached"),
        (("https://x.example/", "-H", "nonsense"), "not a header"),
        (("https://x.example/", "-H", "Cookie: a=b"), "header"),
    ],
)
def test_a_bad_request_costs_nothing_and_says_why(
    cli: Cli, arguments: tuple[str, ...], words: str
) -> None:
    asked = cli("fetch", *arguments, "--budget", "0.05 USDC", "--yes")
    assert asked.exit_code in (1, 2)
    assert words in asked.stderr
    assert "hint: " in asked.stderr


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """A verb that serves, in a process of its own; yields the line that says where."""
    with subprocess.Popen(
        [sys.executable, "-m", "agentkit", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        try:
            yield next(line for line in lines if "http://" in line or "error" in line)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=limit(20)) == 0


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=limit(10)) as answer:
        return json.load(answer)


def test_a_facilitator_says_what_it_settles_and_who_pays_the_gas(
    cli: Cli, network: discovery.NetworkFile
) -> None:
    port = free_port()
    with running("facilitator", "--port", str(port)) as told:
        assert f"http://127.0.0.1:{port}" in told
        supported = asked(f"http://127.0.0.1:{port}/supported")
        schemes = {kind["scheme"] for kind in supported["kinds"]}
        assert schemes == {"exact", "batch-settlement", "upto", "escrow"}
        (signer,) = supported["signers"]["eip155:*"]
        assert signer in told


def test_a_seller_without_gas_sells_over_channels_by_the_networks_facilitator(
    cli: Cli, network: discovery.NetworkFile
) -> None:
    port = free_port()
    with running("serve", "--port", str(port)) as told:
        assert f"http://127.0.0.1:{port}" in told
        url = f"http://127.0.0.1:{port}{CHAT}"
        done = cli("fetch", url, "--data", QUESTION, "--budget", "0.05 USDC", "--yes", "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["status"] == 200
        paid = json.loads(done.stdout)["paid"]
        earned = json.loads(cli("serve", "--status", "--json").stdout)
        assert earned["rails"].keys() == {"batch-settlement"}
        assert (earned["earned"], earned["until"]) == (paid, 0)
        assert "by batch-settlement" in cli("serve", "--status").stdout
    cli("receipts", "--out", "bundle.json")
    checked = cli("receipts", "--check", "bundle.json")
    assert "the seller's offer and receipt" in checked.stdout
    assert "not proven: by a seller's offer and receipt: what was charged" in checked.stdout
    failed(cli("serve", "--status", "--name", "nobody"), 2, "no books")

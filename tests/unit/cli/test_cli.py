"""Verbs, their exit codes, and what they tell a newcomer who did something wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import HELLO, failed

from agentkit.graph.builder import JobGraph


def test_init_never_overwrites(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "correct horse")
    monkeypatch.setenv("AGENTKIT_WALLET__KEYSTORE", str(tmp_path / "wallet.json"))
    first = cli("init")
    assert first.exit_code == 0
    kept = (tmp_path / "wallet.json").read_text()
    assert (tmp_path / "wallet.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(kept)["crypto"]["ciphertext"]
    assert (tmp_path / "graph.toml").read_text() == HELLO
    second = cli("init")
    assert second.stdout.count("was there already") == 3
    assert (tmp_path / "wallet.json").read_text() == kept
    assert "correct horse" not in first.output + second.output


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'g'\n[[nodes]]\nkind='infer'\nname='a'\nmodel='m'\nprompt='{b}'", ["{b}"]),
        (
            "name='g'\n[[nodes]]\nkind='data'\nop='sql'\nname='a'\nsql='x'\ninputs={b={node='b'}}\n"
            "[[nodes]]\nkind='data'\nop='sql'\nname='b'\nsql='x'\ninputs={a={node='a'}}",
            ["wait for one another", "a -> b"],
        ),
        ("name='g'\n[[nodes]]\nkind='train'\nname='t'\nbase='b'\ndataset={node='gone'}", ["gone"]),
        ("= not toml", ["cannot be read"]),
    ],
    ids=["missing input", "cycle", "dangling", "not toml"],
)
def test_a_bad_graph_exits_2(cli: Any, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "bad.toml").write_text(text)
    failed(cli("plan", "bad.toml"), 2, *words)


@pytest.mark.parametrize(
    "budget", ["0.05", "5", "0.05 DOGE", "-1 USDC", "NaN USDC", "1e3 USDC", "0.0000001 USDC"]
)
def test_a_budget_that_is_no_amount_exits_2(cli: Any, budget: str) -> None:
    failed(cli("plan", "graph.toml", "--budget", budget), 2, budget.rsplit(maxsplit=1)[-1])


def test_the_example_graph_of_init_is_a_graph(tmp_path: Path) -> None:
    from agentkit.cli.setup import FIRST_CONFIG, FIRST_GRAPH
    from agentkit.config import Settings

    (tmp_path / "graph.toml").write_text(FIRST_GRAPH)
    assert JobGraph.load(tmp_path / "graph.toml").freeze().name == "hello"
    (tmp_path / "agentkit.toml").write_text(FIRST_CONFIG.format(keystore="x"))
    assert Settings.read(tmp_path / "agentkit.toml").network is None


def test_a_misspelt_secret_is_not_shown(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "agentkit.toml").write_text("[providers.gaia]\napikey = 'sk-very-secret'\n")
    result = cli("plan", "graph.toml")
    failed(result, 2, "providers.gaia.apikey", "agentkit.toml")
    assert "sk-very-secret" not in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[nodes]]\nkind='infer'\nname='greet'\nmodle='m'\nprompt='p'", ["'greet'", "modle"]),
        ("[[nodes]]\nkind='data'\nname='rows'\nsource='r.csv'", ["'rows'", "does not say which"]),
        ("[[nodes]]\nkind='inference'\nname='x'", ["'x'", "no such kind"]),
        ("[[node]]\nkind='infer'", ["node", "not known"]),
    ],
    ids=["key", "op", "kind", "nodes"],
)
def test_a_slip_in_a_graph_file_names_the_node_and_the_key(
    cli: Any, tmp_path: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "slip.toml").write_text(f"name = 'g'\n{text}\n")
    failed(cli("plan", "slip.toml"), 2, *words)


@pytest.mark.parametrize("verb", [["serve"], ["network", "serve"]])
def test_a_port_that_is_none_is_refused(cli: Any, verb: list[str]) -> None:
    result = cli(*verb, "--port", "99999")
    assert result.exit_code == 2
    assert "less than or equal to 65" in result.stderr


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "", "a b"])
def test_a_nodes_name_leads_to_no_other_folder(cli: Any, tmp_path: Path, name: str) -> None:
    result = cli("serve", "--name", name)
    assert result.exit_code == 2
    assert not list(tmp_path.rglob("node"))

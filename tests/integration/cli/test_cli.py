"""Verbs, their exit codes, and what they tell a newcomer who did something wrong."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.command_line import HELLO, failed
from support.keystore_files import PASSPHRASE, write_keystore
from support.timing import limit

from agentkit.embedded import discovery
from agentkit.keys import keystore
from agentkit.market.plan import Plan


def test_plan_shows_prices_and_spends_nothing(cli: Any, tmp_path: Path) -> None:
    result = cli("plan", "graph.toml", "--budget", "0.05 USDC", "--explain", "greet")
    assert result.exit_code == 0
    assert "of 0.05 USDC" in result.stdout
    assert "chosen, paid by channel" in result.stdout
    told = json.loads(cli("plan", "graph.toml", "--json").stdout)
    assert told["graph"]["name"] == "hello"
    assert cli("receipts").stdout == "no receipts yet\n"
    assert "no runs yet" in cli("status").stdout


def test_plans_are_compared_and_wished_for_in_every_way(cli: Any) -> None:
    cli("plan", "graph.toml", "--out", "first.json")
    told = cli("plan", "graph.toml", "--objective", "time", "--diff", "first.json").stdout
    assert "\ntotal " in told
    assert "plan " in told and " -> " in told
    assert cli("plan", "graph.toml", "--objective", "0.5", "--risk", "0.9").exit_code == 0
    failed(cli("plan", "graph.toml", "--objective", "speed"), 2, "not a valid objective")
    failed(cli("plan", "graph.toml", "--objective", "7"), 2, "not a valid objective")
    failed(cli("plan", "graph.toml", "--effort", "huge"), 2, "not a valid effort")
    assert cli("plan", "graph.toml", "--rest", "r0").exit_code == 1


def test_a_saved_plan_runs_without_asking(cli: Any) -> None:
    cli("plan", "graph.toml", "--out", "plan.json")
    result = cli("run", "plan.json", "--json")
    assert result.exit_code == 0
    run = json.loads(result.stdout)
    assert run["paid"] != "0.00 USDC"
    (row,) = json.loads(cli("status", "--json").stdout)["runs"]
    assert (row["run"], row["state"]) == (run["run"], "done")
    (receipt,) = json.loads(cli("receipts", run["run"], "--json").stdout)
    assert receipt["standing"] == "paid"
    assert "paid" in cli("receipts", "--csv").stdout
    assert f"run {run['run']} · hello · done" in cli("status", run["run"]).stdout
    again = cli("resume", run["run"], "--json")  # a run that is done stays done
    assert json.loads(again.stdout) == run
    assert json.loads(cli("wallet", "show", "--json").stdout)["spent ever"] == run["paid"]
    assert "closed" in cli("wallet", "close").stdout


def test_without_anybody_to_ask_a_graph_is_not_run(cli: Any) -> None:
    failed(cli("run", "graph.toml"), 2, "stdin is not a terminal, so nobody can confirm")
    assert cli("run", "graph.toml", "--yes").exit_code == 0


def test_providers_and_doctor(cli: Any) -> None:
    listed = cli("providers").stdout
    for name in ("native", "gaia", "hyperbolic"):
        assert name in listed
    assert "wire shape after LlamaEdge" in listed
    checked = cli("doctor")
    assert checked.exit_code == 0, checked.stdout
    assert "!!" not in checked.stdout


def test_what_is_not_on_arweave_and_why_is_in_the_status(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of loss, told by another process than the one that met the trouble."""
    assert "everything is on the embedded Arweave gateway" in cli("status").stdout
    monkeypatch.setenv("AGENTKIT_MEMORY__GATEWAYS", '["http://127.0.0.1:1"]')
    assert cli("run", "graph.toml", "--yes").exit_code == 0  # it keeps working from its journal
    told = cli("status").stdout
    steps = re.search(r"(\d+) steps not yet on the embedded Arweave gateway, oldest \d+ s", told)
    assert steps, told
    paused = "Arweave upload paused: http://127.0.0.1:1 cannot be reached"
    assert paused in told
    memory = json.loads(cli("status", "--json").stdout)["memory"]
    assert memory["not_yet_on_arweave"] == int(steps[1])
    assert memory["segments"]["sealed"] > 0
    assert memory["trouble"].startswith(paused)
    monkeypatch.delenv("AGENTKIT_MEMORY__GATEWAYS")
    assert cli("run", "graph.toml", "--yes").exit_code == 0
    memory = json.loads(cli("status", "--json").stdout)["memory"]
    assert (memory["not_yet_on_arweave"], memory["trouble"]) == (0, "")


def test_network_status_tells_no_secret(cli: Any, network: discovery.NetworkFile) -> None:
    for flags in ([], ["--json"]):
        told = cli("network", "status", *flags).stdout
        assert network.gateway in told
        assert network.token not in told
        assert network.providers["hyperbolic"]["api_key"] not in told


def test_files_that_are_not_there_are_named(cli: Any) -> None:
    failed(cli("plan", "gone.toml"), 2, "gone.toml")
    failed(cli("plan", "gone.py:graph"), 2, "gone.py")
    failed(cli("plan", "gone.py"), 2, "which graph")
    failed(cli("status", "r00000000"), 1, "r00000000")
    failed(cli("resume", "r00000000"), 1, "r00000000")
    failed(cli("cancel", "r00000000"), 1, "r00000000")
    failed(cli("plan", "graph.toml", "--config", "gone.toml"), 2, "gone.toml")


def test_no_plan_within_the_limits_exits_3(cli: Any, tmp_path: Path) -> None:
    failed(cli("plan", "graph.toml", "--budget", "0.000001 USDC"), 3, "limit budget")
    failed(cli("run", "graph.toml", "--yes", "--deadline", "0s"), 3, "in the past")
    (tmp_path / "unknown.toml").write_text(HELLO.replace("smollm2-135m", "gpt-17"))
    failed(cli("plan", "unknown.toml"), 3, "gpt-17", "'greet'")
    assert "no runs yet" in cli("status").stdout


def test_odd_options_exit_2(cli: Any) -> None:
    failed(cli("plan", "graph.toml", "--deadline", "soon"), 2, "soon")
    failed(cli("plan", "graph.toml", "--policy", "sell(x)"), 2, "sell(x)")
    failed(cli("plan", "graph.toml", "--objective", "fun"), 2, "fun")


def test_a_changed_plan_exits_3(cli: Any, tmp_path: Path) -> None:
    cli("plan", "graph.toml", "--out", "plan.json")
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace("Greet", "Insult"))
    failed(cli("run", "plan.json"), 3, "was changed")


def test_settings_that_cannot_be_name_key_and_file(cli: Any, tmp_path: Path) -> None:
    for text, words in (
        ("nonsense = 1", ["nonsense", "agentkit.toml"]),
        ("[allowance]\nper_run = 2.0", ["allowance.per_run", "agentkit.toml"]),
        ("[providers.x]\nurl = 'http://127.0.0.1:1'", ["'x'"]),
        ("[providers.gaia]\nprice.thought = '1 USDC per 1 request'", ["price.thought"]),
        ("passphrase = 'hunter2'", ["passphrase"]),
        ("= =", ["agentkit.toml"]),
    ):
        (tmp_path / "agentkit.toml").write_text(text)
        result = cli("plan", "graph.toml")
        failed(result, 2, *words)
        assert "hunter2" not in result.output


def test_a_real_network_wants_a_real_wallet(
    cli: Any, tmp_path: Path, network: discovery.NetworkFile
) -> None:
    chain = "[chain]\nrpc = 'http://127.0.0.1:1'\nchannels = '0x" + "11" * 20 + "'\n"
    (tmp_path / "agentkit.toml").write_text("network = 'moon'")
    failed(cli("status"), 2, "'moon'")
    (tmp_path / "agentkit.toml").write_text("network = 'base-sepolia'")
    failed(cli("status"), 2, "chain.rpc")
    keystore = "[wallet]\nkeystore = '{}'\n"
    (tmp_path / "agentkit.toml").write_text(
        "network = 'base-sepolia'\n" + chain + keystore.format(tmp_path / "none.json")
    )
    failed(cli("status"), 2, "there is no keystore")
    (tmp_path / "agentkit.toml").write_text(
        "network = 'base-sepolia'\n" + chain + keystore.format(network.agent_key)
    )
    failed(cli("status"), 2, "test key of the embedded network")


def test_a_wrong_passphrase_opens_nothing(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_WALLET__KEYSTORE", str(tmp_path / "wallet.json"))
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "right")
    cli("init")
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "wrong")
    failed(
        cli("memory", "restore", "--keystore", "wallet.json", "--gateway", "http://127.0.0.1:1"),
        2,
        "passphrase does not open",
    )
    (tmp_path / "wallet.json").chmod(0o644)
    failed(cli("memory", "verify", "--keystore", "wallet.json"), 2, "others can read")


def test_a_key_nobody_knows_restores_nothing(cli: Any, tmp_path: Path) -> None:

    keystore.create_test_key(tmp_path / "stranger.json")
    failed(
        cli("memory", "restore", "--keystore", "stranger.json"), 1, "no gateway has any agentkit"
    )
    assert not (tmp_path / "home").exists()


def test_a_provider_that_is_down_is_named_and_passed_over(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "agentkit.toml").write_text(
        "[providers.gaia]\nurl = 'http://127.0.0.1:1/v1'\nmodels = {'smollm2-135m' = 'x'}\n"
    )
    result = cli("plan", "graph.toml", "--explain", "greet")
    assert result.exit_code == 0
    assert re.search(r"gaia.*left out: cannot be reached", result.stdout)


def test_an_unknown_price_is_a_refusal_never_a_zero(
    cli: Any, tmp_path: Path, network: discovery.NetworkFile
) -> None:
    gaia = network.providers["gaia"]
    (tmp_path / "agentkit.toml").write_text(
        "[allowance]\nproviders = ['gaia']\n[providers.gaia]\n"
        f"url = '{gaia['url']}'\nmodels = {{'smollm2-135m' = '{gaia['models']['smollm2-135m']}'}}\n"
    )
    failed(cli("plan", "graph.toml"), 3, "no price is known for input, output")


def test_a_lambda_cannot_be_resumed_from_here(cli: Any, tmp_path: Path) -> None:
    """The script that has it is killed; only a process that makes it again can go on."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "import agentkit as ak\n"
        "graph = ak.JobGraph('g')\n"
        "a = graph.infer('greet', model='smollm2-135m', prompt='Hi.', max_tokens=4)\n"
        "graph.local('kill', lambda text: os.kill(os.getpid(), signal.SIGKILL), a)\n"
        "ak.run(graph)\n"
    )
    killed = subprocess.run([sys.executable, str(script)], check=False, capture_output=True)
    assert killed.returncode == -9
    (row,) = json.loads(cli("status", "--json").stdout)["runs"]
    failed(cli("resume", row["run"]), 2, "lives only in the process")
    assert json.loads(cli("status", "--json").stdout)["runs"][0]["state"] == "running"


def test_a_damaged_journal_exits_1_and_spends_nothing(cli: Any, tmp_path: Path) -> None:
    run = json.loads(cli("run", "graph.toml", "--yes", "--json").stdout)["run"]
    (path,) = (tmp_path / "home").glob("*/state.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("update events set body=replace(body, 'greet', 'great') where stream=?", (run,))
    for verb in (("resume", run), ("memory", "verify")):
        failed(cli(*verb), 1, "is damaged", run)


def test_errors_are_json_too(cli: Any) -> None:
    result = cli("plan", "graph.toml", "--budget", "0.000001 USDC", "--json")
    told = json.loads(result.stdout)
    assert told["error"]["type"] == "OverBudget"
    assert told["exit_code"] == result.exit_code == 3
    assert told["error"]["hint"]


def test_a_graph_object_in_a_file_is_run(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "jobs_here.py").write_text(
        "import agentkit as ak\n"
        "def shout(text: ak.Text) -> str:\n"
        "    return text.text.upper()\n"
        "graph = ak.JobGraph('hello')\n"
        "a = graph.infer('greet', model='smollm2-135m', prompt='Hi.', max_tokens=4)\n"
        "graph.local('shout', shout, a)\n"
        "other = 5\n"
    )
    assert cli("run", "jobs_here.py:graph", "--yes").exit_code == 0
    failed(cli("plan", "jobs_here.py:other"), 2, "'other'")


def test_what_the_machine_refuses_is_an_error_and_no_traceback(cli: Any, tmp_path: Path) -> None:
    failed(cli("plan", "graph.toml", "--out", "no/folder/plan.json"), 2, "no/folder/plan.json")
    (tmp_path / "broken.py").write_text("graph = 1 / 0\n")
    failed(cli("plan", "broken.py:graph"), 2, "broken.py", "ZeroDivisionError")
    (tmp_path / "agentkit.toml").write_text("[memory]\nseal_before_pay = 'much'\n")
    failed(cli("run", "graph.toml", "--yes"), 2, "'much'")
    (tmp_path / "agentkit.toml").unlink()
    assert "no runs yet" in cli("status").stdout


def test_a_plan_is_run_as_it_is_or_not_at_all(cli: Any, tmp_path: Path) -> None:
    cli("plan", "graph.toml", "--out", "plan.json")
    for option in (("--budget", "0.000001 USDC"), ("--deadline", "1s"), ("--policy", "deny(x)")):
        failed(cli("run", "plan.json", *option), 2, "is a plan", option[0])
    assert "no runs yet" in cli("status").stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_an_output_cannot_encode_ends_no_paid_run(cli: Any, encoding: str) -> None:
    Path("said.py").write_text(
        "import agentkit as ak\n"
        "graph = ak.JobGraph('said')\n"
        "def say() -> ak.Json:\n    return 'pay \u2192 \U0001f600'\n"
        "graph.local('say', say)\n",
        "utf-8",
    )
    told = subprocess.run(
        [sys.executable, "-m", "agentkit", "run", "said.py:graph", "--yes"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=limit(60),
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert b"is done" in told.stdout


def test_a_receipt_says_what_proves_it_and_an_edited_one_is_found(cli: Any, tmp_path: Path) -> None:
    assert cli("run", "graph.toml", "--yes").exit_code == 0
    assert cli("receipts", "--out", "r.json").exit_code == 0
    told = cli("receipts", "--check", "r.json")
    assert told.exit_code == 0, told.output
    assert "proven by" in told.stdout
    assert re.search(r"greet .* (signature and voucher|the payer's word)", told.stdout)
    assert "not proven: when each receipt was made" in told.stdout
    for name, value in (("run", "rdeadbeef"), ("node", "other"), ("provider", "acme")):
        document = json.loads((tmp_path / "r.json").read_text())
        document["receipts"][0]["attempt"][name] = value
        (tmp_path / "edited.json").write_text(json.dumps(document))
        assert cli("receipts", "--check", "edited.json").exit_code == 1, name


def test_a_run_shows_what_came_out_and_ends_once(cli: Any) -> None:
    told = cli("run", "graph.toml", "--yes").stdout
    assert re.match(r"greet: \S+", told)
    run = re.search(r"run (\w+) is done", told)[1]  # type: ignore[index]
    assert f"run {run} is done already" in cli("cancel", run).stdout
    assert f"run {run} is done" in cli("resume", run).stdout


def test_rows_that_cannot_do_are_refused_before_anything_is_bought(
    cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,b\n" * 104)
    graph = (
        "name='g'\n[[nodes]]\nkind='data'\nop='source'\nname='rows'\nsource='rows.csv'\n"
        "[[nodes]]\nkind='infer'\nname='ask'\nmodel='smollm2-135m'\nprompt='{text}'\n"
        "over={node='rows'}\n"
    )
    (tmp_path / "many.toml").write_text(graph)
    failed(cli("plan", "many.toml"), 2, "104 rows", "max_items is 100")
    (tmp_path / "many.toml").write_text(graph.replace("{text}", "{txt}") + "max_items=104\n")
    result = cli("plan", "many.toml")
    failed(result, 2, "{txt}")
    assert "label, text" in result.stderr


def test_a_run_that_was_killed_is_shown_as_left(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, signal\n"
        "import agentkit as ak\n"
        "def stop() -> str:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "graph = ak.JobGraph('g')\n"
        "graph.local('stop', stop)\n"
        "ak.run(graph)\n"
    )
    killed = subprocess.run([sys.executable, "script.py"], check=False, capture_output=True)
    assert killed.returncode == -9
    (row,) = json.loads(cli("status", "--json").stdout)["runs"]
    assert "no process works on it" in cli("status").stdout
    assert f"agentkit resume {row['run']}" in cli("status", row["run"]).stdout


def test_a_node_that_needs_consent_waits_for_it(cli: Any, tmp_path: Path) -> None:
    """Nobody is at the terminal, so nothing is bought until somebody says yes."""
    Path("graph.toml").write_text(HELLO + "approve = true\n")
    outcome = cli("run", "graph.toml", "--yes", "--json")
    assert outcome.exit_code == 4
    error = json.loads(outcome.stdout.splitlines()[-1])["error"]
    assert "nobody agreed to" in error["message"]
    run = error["message"].split()[1]
    assert f"agentkit resume {run} --approve greet" in error["hint"]
    wrong = cli("resume", run, "--approve", "nobody")
    assert wrong.exit_code == 3
    assert "no node 'nobody'" in wrong.output
    assert cli("resume", run, "--approve", "greet").exit_code == 0
    lines = [json.loads(line) for line in cli("status", run, "--events").stdout.splitlines()]
    names = [line["event"] for line in lines]
    assert names[0] == "RunStarted"
    assert names.count("Approved") == 1
    assert names[-1] == "RunFinished"


def test_a_budget_can_be_raised_and_a_smaller_one_is_refused(cli: Any) -> None:
    Path("graph.toml").write_text(HELLO + "approve = true\n")
    run = json.loads(cli("run", "graph.toml", "--yes", "--json").stdout.splitlines()[-1])
    name = run["error"]["message"].split()[1]
    low = cli("resume", name, "--budget", "0.0000001 USDC")
    assert low.exit_code in (2, 3)
    assert cli("resume", name, "--budget", "1 USDC", "--approve", "greet").exit_code == 0


def test_a_missing_key_of_one_provider_stops_no_verb(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "agentkit.toml").write_text(
        "[providers.rented]\nadapter = 'gaia'\nurl = 'http://127.0.0.1:1'\n"
        "api_key = { env = 'NO_SUCH_KEY' }\nprice.input = '1 USDC per 1M tokens'\n"
    )
    for verb in (["status"], ["wallet", "show"], ["providers"], ["plan", "graph.toml"]):
        result = cli(*verb)
        assert result.exit_code == 0, (verb, result.output)
    assert "NO_SUCH_KEY" in cli("providers").stdout
    assert "NO_SUCH_KEY" in cli("doctor").stdout
    assert "NO_SUCH_KEY" in cli("plan", "graph.toml", "--explain", "greet").stdout


def test_a_function_that_nobody_can_find_is_refused_when_it_is_planned(
    cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "local.toml").write_text(
        'name = "l"\n[[nodes]]\nname = "a"\nkind = "local"\n'
        'fn = { module = "helper", qualname = "f" }\n'
    )
    result = cli("plan", "local.toml")
    failed(result, 2, "'a'", "helper:f")
    assert "graph.save()" in result.stderr


def test_a_saved_plan_is_shown_as_it_was_made(cli: Any) -> None:
    made = cli("plan", "graph.toml", "--out", "plan.json")
    shown = cli("plan", "plan.json")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.split("prices hold")[0] == made.stdout.split("prices hold")[0]
    failed(cli("plan", "plan.json", "--budget", "1 USDC"), 2, "is a plan", "--budget")


def test_the_network_is_not_forgotten_unasked(cli: Any) -> None:
    failed(cli("network", "reset"), 2, "nobody can confirm")
    assert cli("network", "status").stdout.startswith("process")


def test_a_plan_says_when_the_day_has_no_room_for_it_and_what_was_spent(
    cli: Any, tmp_path: Path
) -> None:
    assert cli("run", "graph.toml", "--yes").exit_code == 0
    (tmp_path / "agentkit.toml").write_text("[allowance]\nper_day = '0.00002 USDC'\n")
    result = cli("plan", "graph.toml")
    failed(result, 3, "per_day", "spent or set aside before")
    assert "wait for the next day" in result.stderr


@pytest.mark.parametrize("edit", ["another name", "twice", "a cycle", "no end"])
def test_a_plan_that_somebody_put_together_is_no_plan(cli: Any, tmp_path: Path, edit: str) -> None:
    """Its digest is no secret, so it can be made to fit."""
    assert cli("plan", "graph.toml", "--out", "plan.json").exit_code == 0
    document = json.loads((tmp_path / "plan.json").read_text())
    nodes = document["plan"]["nodes"]
    if edit == "another name":
        nodes[0]["name"] = "other"
    elif edit == "twice":
        nodes.append(nodes[0])
    elif edit == "no end":
        document["plan"]["eta"] = "9" * 5000
    else:
        document["plan"]["graph"]["nodes"][0]["inputs"] = {"x": {"node": "greet"}}
    document["digest"] = Plan.model_validate(document["plan"]).id
    (tmp_path / "edited.json").write_text(json.dumps(document))
    failed(cli("plan", "edited.json"), 3, "edited.json is not a plan")
    failed(cli("run", "edited.json"), 3, "edited.json is not a plan")


def test_doctor_reports_all_that_it_finds(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the chain nor a key nor the gateway is there, and each is said."""
    write_keystore(tmp_path / "wallet.json")
    (tmp_path / "agentkit.toml").write_text(
        "network = 'base-sepolia'\n[chain]\nrpc = 'http://127.0.0.1:1'\n"
        f"channels = '0x{'11' * 20}'\n[wallet]\nkeystore = 'wallet.json'\n"
        "unlock = { env = 'AGENTKIT_PASSPHRASE' }\n"
        "[providers.rented]\nadapter = 'gaia'\nurl = 'http://127.0.0.1:1'\n"
        "api_key = { env = 'NO_SUCH_KEY' }\n[providers.down]\nadapter = 'gaia'\n"
        "url = 'http://127.0.0.1:1'\n[memory]\ngateways = ['http://127.0.0.1:1']\n"
    )
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", PASSPHRASE)
    result = cli("doctor", "--json")
    assert result.exit_code == 1
    found = {check["check"]: check for check in json.loads(result.stdout)}
    assert not found["wallet"]["ok"]
    assert "does not answer" in found["wallet"]["finding"]
    assert "NO_SUCH_KEY" in found["provider rented"]["finding"]
    assert "cannot be reached" in found["provider down"]["finding"]
    assert "memory" in found

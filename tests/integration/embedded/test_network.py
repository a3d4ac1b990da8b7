"""Every door of the embedded network, as a web page and another user of this machine find it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from support.timing import limit

from agentkit.embedded import discovery

PAGE = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
REBOUND = {"Host": "evil.example"}
WALLET = "a" * 43
SWITCHES = [
    ("GET", f"/mint/{WALLET}/1000000", None),
    ("GET", "/mine", None),
    ("GET", "/%6dine", None),
    ("GET", "/bench/faults", None),
    ("POST", "/bench/faults", b'{"hide": ["*"]}'),
    ("POST", "/bench/reorg/5", b""),
    ("POST", f"/bench/lose/{WALLET}", b""),
]


def ask(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=limit(20)) as told:
            return told.status, told.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@pytest.fixture
def doors(network: discovery.NetworkFile) -> dict[str, str]:
    """Every door that the network opens."""
    found = {"control": network.url, "gateway": network.gateway, "rpc": network.network["rpc"]}
    found |= {f"node {name}": url for name, url in network.nodes.items()}
    return found | {name: p["url"] for name, p in network.providers.items() if "url" in p}


def test_no_door_answers_a_page_or_another_name(doors: dict[str, str]) -> None:
    assert len(doors) == 7
    for name, url in doors.items():
        for headers in (REBOUND, PAGE, {"Sec-Fetch-Site": "cross-site"}):
            for method, body in (("GET", None), ("POST", b"{}")):
                assert ask(method, url, body, headers)[0] == 403, (name, headers)


@pytest.mark.parametrize(("method", "path", "body"), SWITCHES)
def test_a_switch_of_the_gateway_needs_the_token(
    network: discovery.NetworkFile, method: str, path: str, body: bytes | None
) -> None:
    height = json.loads(ask("GET", f"{network.gateway}/info", None, {})[1])["height"]
    for headers in ({}, {"Authorization": "Bearer x"}, PAGE, REBOUND):
        json_type = {"Content-Type": "application/json", **headers}
        assert ask(method, network.gateway + path, body, json_type)[0] == 403
    balance = ask("GET", f"{network.gateway}/wallet/{WALLET}/balance", None, {})
    assert balance == (200, "0")
    assert json.loads(ask("GET", f"{network.gateway}/info", None, {})[1])["height"] >= height


def rpc(network: discovery.NetworkFile, request: Any, **headers: str) -> Any:
    sent = {"Content-Type": "application/json", **headers}
    status, told = ask("POST", network.network["rpc"], json.dumps(request).encode(), sent)
    assert status == 200
    return json.loads(told)


def test_the_chains_clock_and_blocks_need_the_token(network: discovery.NetworkFile) -> None:
    number = {"jsonrpc": "2.0", "id": 2, "method": "eth_blockNumber"}
    before = rpc(network, number)["result"]
    for method, params in (("evm_mine", []), ("evm_increaseTime", [1]), ("anvil_mine", [])):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        for sent in (request, [number, request]):
            told = rpc(network, sent)
            refused = told if isinstance(told, dict) else told[1]
            assert refused["error"]["code"] == -32001
    assert rpc(network, number)["result"] == before
    request = {"jsonrpc": "2.0", "id": 1, "method": "evm_mine"}
    assert rpc(network, request, Authorization=f"Bearer {network.token}")["result"] == "0x0"


def test_an_odd_token_is_a_refusal(network: discovery.NetworkFile) -> None:
    for url in (f"{network.url}/executions", *(f"{u}/executions" for u in network.nodes.values())):
        assert ask("GET", url, None, {"Authorization": "Bearer \xe9"})[0] == 403
        assert ask("GET", url, None, {"Authorization": f"Bearer {network.token}"})[0] == 200


def test_a_stop_of_a_page_stops_nothing(network: discovery.NetworkFile) -> None:
    for headers in ({}, PAGE, {**PAGE, "Authorization": f"Bearer {network.token}"}):
        sent = {"Content-Type": "application/json", **headers}
        assert ask("POST", f"{network.url}/stop", b"", sent)[0] == 403
    assert json.loads(ask("GET", f"{network.url}/health", None, {})[1])["pid"] == network.pid

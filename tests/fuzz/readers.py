"""Coverage-guided fuzzing of what reads bytes from outside: `readers.py NAME [libFuzzer options]`.

A reader may take its input or refuse it with an error of ours.  Anything else ends the process with
a traceback and the input that caused it.

Bytes that are changed at random are hardly ever JSON.  So for documents the fuzzer's bytes choose
which values of a good document are replaced, and by what.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris
import zstandard

with atheris.instrument_imports(include=["agentkit"]):
    from agentkit.config import Settings
    from agentkit.errors import AgentKitError
    from agentkit.graph.builder import JobGraph
    from agentkit.keys.signer import KeySigner
    from agentkit.market.plan import Plan
    from agentkit.memory.arweave import ans104
    from agentkit.payments.channels.body import read_body
    from agentkit.payments.receipts import Bundle, verify
    from agentkit.strict_json import BadJson, loads
    from agentkit.tables import read_table
    from agentkit.testing.fakes import NETWORK

FOLDER = Path(tempfile.mkdtemp(prefix="agentkit-fuzz-"))
PAYEE = KeySigner(b"\1" * 32).address


def written(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def graph(data: bytes) -> None:
    JobGraph.load(written("graph.json", data)).freeze()


def toml(data: bytes) -> None:
    JobGraph.load(written("graph.toml", data)).freeze()


def plan(data: bytes) -> None:
    """Read a plan; the digest is made to fit, or nothing behind it would be reached."""
    try:
        document = loads(data)
        document["digest"] = Plan.model_validate(document["plan"]).id
        data = json.dumps(document).encode()
    except (ValueError, KeyError, TypeError):
        pass
    str(Plan.load(written("plan.json", data)))


def settings(data: bytes) -> None:
    Settings.read(written("agentkit.toml", data))


def receipt(data: bytes) -> None:
    verify(Bundle.load(written("receipts.json", data)))


def voucher(data: bytes) -> None:
    try:
        body = loads(data)
    except BadJson:
        return
    if isinstance(body, dict):
        read_body(body, PAYEE, NETWORK)


def item(data: bytes) -> None:
    ans104.parse_item(data)


def bundle(data: bytes) -> None:
    ans104.parse_bundle(data)


def table(data: bytes) -> None:
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.csv.gz"):
        try:
            read_table(data, name)
        except AgentKitError:
            continue


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, 2**63, -(2**63), 1e308, [], {}, [[]], {"a": 1}, ["a", None],
    "", "a", "\ud800", "\x00", "\u202e", "0x", "a" * 300, "9" * 5000,
    "1 USDC", "-1 USDC", "1e9 USDC",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def changed(document: Any, data: bytes) -> bytes:
    """Return a document in which the fuzzer's bytes replaced, dropped or added values."""
    choose = atheris.FuzzedDataProvider(data)
    document = copy.deepcopy(document)
    for _ in range(choose.ConsumeIntInRange(0, 4)):
        all_places = [place for place in places(document) if place]
        if not all_places:
            break
        *way, last = choose.PickValueInList(all_places)
        holder = document
        for key in way:
            holder = holder[key]
        match choose.ConsumeIntInRange(0, 3):
            case 0 if isinstance(holder, dict):
                del holder[last]
            case 1 if isinstance(holder, dict):
                holder[choose.ConsumeUnicode(8)] = copy.deepcopy(choose.PickValueInList(list(ODD)))
            case 2:
                holder[last] = choose.ConsumeUnicode(40)
            case _:
                holder[last] = copy.deepcopy(choose.PickValueInList(list(ODD)))
    return json.dumps(document).encode()


def golden() -> tuple[Any, list[Any]]:
    """Return a plan and receipts that a real run left."""
    packed = Path(__file__).parents[1] / "homes" / "schema-4" / "agent.db.zst"
    path = written(
        "agent.db", zstandard.ZstdDecompressor().decompress(packed.read_bytes(), 1 << 28)
    )
    with sqlite3.connect(path) as db:
        (started,) = db.execute("select body from events where kind='RunStarted'").fetchone()
        done = db.execute("select body from events where kind='NodeDone'").fetchall()
    db.close()
    receipts = [json.loads(body).get("receipt") for (body,) in done]
    return json.loads(started)["plan"], [receipt for receipt in receipts if receipt]


def documents() -> dict[str, Any]:
    """Return a good document for each reader of JSON."""
    made = JobGraph("hello")
    rows = made.data("rows", source="rows.csv", sha256="0" * 64)
    made.infer("ask", model="m", prompt="{text}", over=rows, max_items=3, output=dict)
    made.save(FOLDER / "seed.json")
    plan_document, receipts = golden()
    empty = Bundle(
        chain_id=1, channels_contract="0x0", token="0x0", payer="0x0", receipts=(), channels=()
    )
    body = {
        "channel": "ab" * 32,
        "payer": "0x" + "11" * 20,
        "token": NETWORK.token,
        "close_delay": 3600,
        "salt": "00" * 32,
        "cumulative": 1,
        "tasks": 1,
        "root": "",
        "voucher": "00" * 65,
    }
    return {
        "graph": json.loads((FOLDER / "seed.json").read_bytes()),
        "plan": {"version": 1, "plan": plan_document, "digest": ""},
        "receipt": empty.model_dump(mode="json") | {"receipts": receipts},
        "voucher": body,
    }


def seeds() -> dict[str, bytes]:
    """Return a good input of each kind that is no JSON, for the fuzzer to begin from."""
    signed = ans104.make_item(KeySigner(b"\1" * 32), b"data", [("App", "x")])
    return {
        "toml": b'name = "g"\n[[nodes]]\nkind = "infer"\nname = "a"\nmodel = "m"\nprompt = "p"\n',
        "settings": b'network = "base-sepolia"\n[allowance]\nper_run = "2 USDC"\n',
        "item": signed.raw,
        "bundle": ans104.make_bundle([signed]),
        "table": b'{"a": 1, "b": "x"}\n',
    }


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader
    for reader in (graph, toml, plan, settings, receipt, voucher, item, bundle, table)
}


def main() -> None:
    """Fuzz one reader until libFuzzer's options say that it is enough."""
    name, options = sys.argv[1], sys.argv[2:]
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(seeds().get(name, bytes(64)))
    document = documents().get(name)
    read = READERS[name]

    def one(data: bytes) -> None:
        with suppress(AgentKitError):
            read(data if document is None else changed(document, data))

    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

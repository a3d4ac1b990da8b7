"""A key in a process of its own: the same signatures, and nothing but the named operations."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.keystore_files import PASSPHRASE
from support.signer_messages import CALL, DOMAIN, MESSAGES, W
from support.timing import limit

from agentkit.errors import ConfigError, ProtocolBroken, StoreUnavailable, WrongKey
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys import signer_protocol
from agentkit.keys.messages import ItemMessage, Voucher
from agentkit.keys.process_signer import ProcessSigner, open_signer
from agentkit.keys.signer import KeySigner

ITEM = ItemMessage(b"o", b"", b"a", b"t", bytes(300_000))


@pytest.fixture(scope="module")
def apart(here: tuple[Path, KeySigner]) -> Any:
    signer = ProcessSigner.start(here[0], PASSPHRASE, real=True)
    yield signer
    signer.close()


def test_it_signs_what_the_key_would(apart: ProcessSigner, here: tuple[Path, KeySigner]) -> None:
    mine = here[1]
    assert set(MESSAGES) == set(signer_protocol.TYPED)
    for verb, message in MESSAGES.items():
        assert getattr(apart, verb)(DOMAIN, message) == getattr(mine, verb)(DOMAIN, message)
    assert apart.sign_tx(CALL) == mine.sign_tx(CALL)
    assert apart.sign_item(ITEM) == mine.sign_item(ITEM)
    assert apart.derive("segments") == mine.derive("segments")
    assert (apart.address, apart.public_key) == (mine.address, mine.public_key)


def test_every_operation_of_a_signer_has_its_word(apart: ProcessSigner) -> None:
    verbs = {name for name in dir(KeySigner) if name.startswith("sign_")}
    assert verbs == set(signer_protocol.TYPED) | set(signer_protocol.BARE)


def raw(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Say lines to a socket and return what it answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(limit(10))
        connection.connect(str(path))
        connection.sendall(b"".join(line + b"\n" for line in lines))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answers:
            return [json.loads(answer) for answer in answers]


def voucher(**changes: Any) -> dict[str, Any]:
    message = {**signer_protocol.written(MESSAGES["sign_voucher"]), **changes}
    return {"do": "sign_voucher", "domain": signer_protocol.written(DOMAIN), "message": message}


BAD: list[Any] = [
    {"do": "sign", "digest": "00" * 32},
    {"do": "_sign", "message": "00" * 32},
    {"do": "__reduce__"},
    {"do": "sign_hash", "message": "00" * 32},
    {"do": ["who"]},
    {"do": "derive"},
    {"do": "derive", "info": 7},
    {"do": "sign_voucher"},
    {**voucher(), "domain": {"name": "x"}},
    voucher(cumulative=-1),
    voucher(cumulative=2**256),
    voucher(cumulative=True),
    voucher(cumulative=1.5),
    voucher(cumulative="5"),
    voucher(channel="no hex"),
    voucher(channel=7),
    voucher(more=1),
    {"do": "sign_tx", "message": {**signer_protocol.written(CALL), "to": "nobody"}},
    {"do": "sign_item", "message": []},
    [],
    None,
    "who",
]


def test_what_is_no_operation_is_refused_and_signs_nothing(apart: ProcessSigner) -> None:
    lines = [json.dumps(bad).encode() for bad in BAD]
    lines += [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"do": "who"}']
    *refused, last = raw(apart._path, *lines)
    assert len(refused) == len(lines) - 1
    assert all(set(answer) == {"refused"} for answer in refused), refused
    assert last["done"]["address"] == apart.address


def test_a_line_without_end_is_cut_off(apart: ProcessSigner) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(limit(30))
        connection.connect(str(apart._path))
        sent, part = 0, b"x" * (1 << 20)
        with pytest.raises(OSError):  # whichever way the other end hangs up
            while sent < 4 * signer_protocol.MAX_BYTES:
                connection.sendall(part)
                sent += len(part)
        assert sent <= signer_protocol.MAX_BYTES + (4 << 20)
    assert apart.derive("x"), "and it goes on serving"


def test_nobody_else_can_reach_it_and_nothing_tells_the_key(
    apart: ProcessSigner, here: tuple[Path, KeySigner]
) -> None:
    assert stat.S_IMODE(apart._path.stat().st_mode) == 0o600
    assert stat.S_IMODE(apart._path.parent.stat().st_mode) == 0o700
    key = here[1]._key.secret
    assert apart._child
    for file in ("cmdline", "environ"):
        seen = Path(f"/proc/{apart._child.pid}/{file}").read_bytes()
        assert PASSPHRASE.encode() not in seen
        assert key.hex().encode() not in seen
    for told in (repr(apart), str(vars(apart))):
        assert key.hex() not in told
        assert PASSPHRASE not in told
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(apart)


async def test_a_process_that_is_gone_signs_nothing_and_writes_nothing(
    here: tuple[Path, KeySigner], tmp_path: Path
) -> None:
    signer = ProcessSigner.start(here[0], PASSPHRASE, real=True)
    journal = await Journal.open(tmp_path, signer.address)
    assert signer._child
    os.kill(signer._child.pid, signal.SIGKILL)
    signer._child.wait()

    def work(tx: Any) -> None:
        tx.append(e.WALLET, e.NoteAdded(topic="t", text="before"))
        signer.sign_voucher(DOMAIN, MESSAGES["sign_voucher"])

    with pytest.raises(StoreUnavailable, match="does not answer") as wrong:
        await journal.commit(work)
    assert wrong.value.hint.startswith("start the agent again")
    assert await journal.rows(e.WALLET) == []
    await journal.close()
    signer.close()


def test_it_ends_with_the_process_that_started_it(here: tuple[Path, KeySigner]) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from agentkit.keys.process_signer import ProcessSigner\n"
        "signer = ProcessSigner.start(Path(sys.argv[1]), sys.argv[2], real=True)\n"
        "print(signer._child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(here[0]), PASSPHRASE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    ends = time.monotonic() + limit(10)
    while Path(f"/proc/{child}").exists() and time.monotonic() < ends:
        status = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if status == "Z":
            break
        time.sleep(0.05)
    assert time.monotonic() < ends, "it outlives its agent"


@pytest.mark.parametrize("wrong", ["passphrase", "missing", "damaged", "open to others"])
def test_why_a_key_file_does_not_open_is_told_as_it_is_here(
    here: tuple[Path, KeySigner], wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "wallet.json"
    path.write_bytes(here[0].read_bytes())
    path.chmod(0o644 if wrong == "open to others" else 0o600)
    if wrong == "damaged":
        path.write_text('{"crypto": {')
    if wrong == "missing":
        path.unlink()
    passphrase = "wrong" if wrong == "passphrase" else PASSPHRASE
    told = []
    for where in ("here", "process"):
        with pytest.raises(ConfigError) as error:
            open_signer(path, lambda: passphrase, where, real=True)
        told.append((type(error.value), str(error.value), error.value.hint))
        assert PASSPHRASE not in "".join(traceback.format_exception(error.value))
    assert told[0] == told[1]
    assert told[0][0] is (WrongKey if wrong in ("passphrase", "damaged") else ConfigError)


def test_a_socket_where_nobody_listens_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer at"):
        open_signer(tmp_path / "x", lambda: "", str(tmp_path / "socket"), real=True)


async def test_many_threads_share_it(apart: ProcessSigner, here: tuple[Path, KeySigner]) -> None:
    vouchers = [Voucher(W, n, n) for n in range(200)]
    signed = await asyncio.gather(
        *(asyncio.to_thread(apart.sign_voucher, DOMAIN, v) for v in vouchers)
    )
    assert signed == [here[1].sign_voucher(DOMAIN, v) for v in vouchers]


def test_a_refusal_is_an_error_of_ours(apart: ProcessSigner) -> None:
    with pytest.raises(ProtocolBroken, match="refuses: cumulative is not a valid int"):
        apart.sign_voucher(DOMAIN, Voucher(W, -1, 1))


def test_an_interrupted_request_does_not_lend_its_answer_to_the_next(
    here: tuple[Path, KeySigner],
) -> None:
    path, known = here
    signer = ProcessSigner.start(path, PASSPHRASE, real=False)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    soon = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        assert signer._child
        process = psutil.Process(signer._child.pid)
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            soon.start()
            signer.derive("one")
        process.resume()
        assert signer.derive("two") == known.derive("two") != known.derive("one")
    finally:
        soon.join()
        signal.signal(signal.SIGUSR1, before)
        signer.close()


def test_an_answer_of_another_request_is_not_believed(
    tmp_path: Path, here: tuple[Path, KeySigner]
) -> None:
    known = here[1]
    who = {"address": known.address, "public_key": known.public_key.hex()}
    with socket.socket(socket.AF_UNIX) as rogue:
        rogue.bind(str(tmp_path / "rogue"))
        rogue.listen()

        def answer() -> None:
            connection, _ = rogue.accept()
            with connection, connection.makefile("rb") as lines:
                first = json.loads(next(lines))["id"]
                for said in ({"done": who, "id": first}, {"done": "00", "id": first}):
                    connection.sendall(json.dumps(said).encode() + b"\n")
                    next(lines, None)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        signer = ProcessSigner(tmp_path / "rogue")
        with pytest.raises(StoreUnavailable):
            signer.derive("one")
        signer.close()
        thread.join(5)

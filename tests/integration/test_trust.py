"""What a folder that a stranger made can do to whoever enters it, and what a person consents to."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.strangers_folder import GAIA, cli, home, strangers_folder, trusted, write

from agentkit.config import trust
from agentkit.keys import keystore
from agentkit.keys.process_signer import ProcessSigner

__all__ = ["home", "strangers_folder"]


# -- secrets -------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A stranger's server: its address, and every Authorization header that reached it."""
    heard: list[str] = []

    class Listen(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(str(self.headers["Authorization"]))
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listen)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_entering_a_folder_sends_no_secret_to_whoever_made_it(
    own_folder: Path, listener: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trusted, the same folder sends it: so the server would have heard the secret."""
    url, heard = listener
    monkeypatch.delenv("AGENTKIT_TRUST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the crown jewels")
    write(own_folder, f"{GAIA}url = '{url}'\napi_key = {{ env = 'AWS_SECRET_ACCESS_KEY' }}\n")
    refused = cli("providers")
    assert (refused.exit_code, heard) == (2, [])
    assert f"agentkit trust {own_folder}" in refused.stderr
    trusted(own_folder)
    cli("providers")
    assert "Bearer the crown jewels" in heard


def test_two_processes_at_once_lose_no_consent(tmp_path: Path, home: Path) -> None:
    folders = [tmp_path / f"folder-{n}" for n in range(6)]
    for folder in folders:
        folder.mkdir()
        write(folder, "network = 'base'\n")

    def consent_to(folder: Path) -> int:
        command = [sys.executable, "-m", "agentkit", "trust", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(consent_to, folders)) == {0}
    assert trust.read_records().keys() == set(folders)


# -- who is asked, and who is not ----------------------------------------------------------------


def on_terminal(folder: Path, answer: str) -> tuple[int, str]:
    """Run a verb on a terminal of its own and answer its question."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "agentkit", "network", "status"],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the child's end is closed
            break
        if not part:
            break
        screen += part
        if b"[y/N]" in part:
            os.write(ours, f"{answer}\n".encode())
    os.close(ours)
    return child.wait(), screen.decode()


def test_on_a_terminal_a_person_is_asked_once(folder: Path) -> None:
    write(folder, "network = 'base'\n")
    code, screen = on_terminal(folder, "n")
    assert code == 2
    assert '"base"' in screen
    assert trust.read_records() == {}
    code, screen = on_terminal(folder, "y")
    assert (code, "not running" in screen) == (0, True)
    code, screen = on_terminal(folder, "")
    assert (code, "trust" in screen) == (0, False)
    write(folder, "network = 'base'\nchain.rpc = 'https://a.example'\n")
    _, screen = on_terminal(folder, "n")
    assert "was changed since you trusted it: chain.rpc" in screen


def test_the_hint_helps_when_it_is_followed(folder: Path) -> None:
    write(folder, "network = 'base'\n")
    refused = cli("network", "status")
    assert refused.exit_code == 2
    command = refused.stderr.split("`")[1]
    done = subprocess.run(
        command.replace("agentkit", f"{sys.executable} -m agentkit", 1),
        shell=True,
        check=False,
        capture_output=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert cli("network", "status").exit_code == 0


def test_doctor_says_it_and_goes_on(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTKIT_TRUST")
    write(own_folder, "network = 'base'\n")
    told = cli("doctor", "--json")
    checks = {row["check"]: row for row in json.loads(told.stdout)}
    assert told.exit_code == 1
    assert not checks["folder"]["ok"]
    assert f"agentkit trust {own_folder}" in checks["folder"]["finding"]
    assert checks["wallet"]["ok"]
    assert "embedded" in checks["wallet"]["finding"]


# -- code ----------------------------------------------------------------------------------------


def test_a_process_of_ours_imports_nothing_from_the_working_directory(folder: Path) -> None:
    """The process that signs is told the passphrase, so a stranger's module must not be in it."""
    for module in ("json.py", "socket.py", "agentkit/__init__.py"):
        path = folder / module
        path.parent.mkdir(exist_ok=True)
        path.write_text("from pathlib import Path\nPath('ran').touch()\nraise SystemExit(9)\n")
    keystore.create_test_key(folder / "key.json")
    signer = ProcessSigner.start(folder / "key.json", "", real=False)
    signer.close()
    assert not (folder / "ran").exists()

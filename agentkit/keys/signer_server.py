"""The process that has the key, behind a unix socket: python -m agentkit.keys.signer_server.

It reads its orders, with the passphrase, as one line of JSON from standard input, answers with one
line (its address and its socket, or why it cannot), and ends when standard input does.  Whoever
can reach the socket can have the named operations done and nothing else: there is no request that
returns the key, and none that signs what it is not shown.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from agentkit.errors import AgentKitError, ConfigError
from agentkit.keys import keystore, signer_protocol
from agentkit.keys.messages import Domain
from agentkit.keys.signer import Signer

MOST_NESTED = 16
"""Brackets in a request; far more would overflow the parser's stack, and with it this process."""


class Refusal(Exception):
    """What was asked is none of the operations, or not in their form."""


def answer(signer: Signer, line: bytes) -> dict[str, Any]:
    """Return the answer to one request, whatever it is; it has the request's `id`."""
    if line.count(b"{") + line.count(b"[") > MOST_NESTED:
        return {"refused": "the request is nested too deep"}
    known: dict[str, Any] = {}
    try:
        request = json.loads(line)
        if isinstance(request, dict) and isinstance(request.get("id"), str):
            known = {"id": request["id"]}
        return {"done": _done(signer, request), **known}
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        return {"refused": str(error)[:300] or "this is no request", **known}
    except Refusal as error:
        return {"refused": str(error), **known}


def _done(signer: Signer, request: Any) -> Any:
    verb = str(request.get("do")) if isinstance(request, dict) else ""
    if verb == "who":
        return {"address": signer.address, "public_key": signer.public_key.hex()}
    if verb == "derive" and isinstance(request.get("info"), str):
        return signer.derive(request["info"]).hex()
    if verb in signer_protocol.TYPED:
        message = signer_protocol.read(signer_protocol.TYPED[verb], request.get("message"))
        domain = signer_protocol.read(Domain, request.get("domain"))
        return getattr(signer, verb)(domain, message).hex()
    if verb == "sign_item":
        return signer.sign_item(
            signer_protocol.read(signer_protocol.BARE[verb], request.get("message"))
        ).hex()
    if verb == "sign_tx":
        transaction, raw = signer.sign_tx(
            signer_protocol.read(signer_protocol.BARE[verb], request.get("message"))
        )
        return {"transaction": transaction, "raw": raw.hex()}
    raise Refusal(f"there is no operation {verb[:40]!r}")


class _Front(socketserver.StreamRequestHandler):
    """One connection: a request a line, an answer a line."""

    server: _Server

    def handle(self) -> None:
        if not _is_ours(self.request):
            return
        while line := self.rfile.readline(signer_protocol.MOST_BYTES + 1):
            if len(line) > signer_protocol.MOST_BYTES:
                self._say({"refused": "the request is too long"})
                return
            self._say(answer(self.server.signer, line))

    def _say(self, document: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(document).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, signer: Signer) -> None:
        self.signer = signer
        before = os.umask(0o177)  # the socket is made with it: never open to others, not briefly
        try:
            super().__init__(str(path), _Front)
        finally:
            os.umask(before)


def _is_ours(connection: socket.socket) -> bool:
    """Whether the other end is this user's, where the system tells (Linux)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return int(user) == os.getuid()


def main() -> None:
    """Unlock the key, serve the socket, end with standard input."""
    orders = json.loads(sys.stdin.readline())
    try:
        signer = keystore.unlock(
            Path(orders["keystore"]), orders["passphrase"], real=orders["real"]
        )
    except AgentKitError as error:
        _tell({"error": type(error).__name__, "message": str(error), "hint": error.hint})
        raise SystemExit(1) from None
    path = Path(orders["socket"])
    del orders
    with _Server(path, signer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _tell({"address": signer.address, "socket": str(path)})
        sys.stdin.read()
        server.shutdown()
    path.unlink(missing_ok=True)


def serve(path: Path, signer: Signer) -> None:
    """Serve a socket until this process is told to end; raises ConfigError where it is taken."""
    try:
        server = _Server(path, signer)
    except OSError as taken:
        raise ConfigError(
            f"{path} cannot be listened at: {taken.strerror}", hint="name another --socket"
        ) from taken
    try:
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        server.serve_forever()
    except KeyboardInterrupt:
        return
    finally:
        server.server_close()
        path.unlink(missing_ok=True)


def _tell(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)  # noqa: T201  # to the process that started this one


if __name__ == "__main__":
    main()

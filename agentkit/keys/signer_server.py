"""The process that has the key, behind a unix socket: python -m agentkit.keys.signer_server.

It reads its orders, with the passphrase, as one line of JSON from standard input.  It answers with
one line: its address and socket, or the error that keeps it from serving.  It ends when standard
input ends.  Whoever can reach the socket can have the named operations done and nothing else: no
request returns the key, and none signs a hash whose content is not shown.
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

MAX_BRACKETS = 16
"""Brackets in a request; very many would overflow the parser's stack, and end this process."""


class Refusal(Exception):
    """A request for an operation that does not exist."""


def answer(signer: Signer, line: bytes) -> dict[str, Any]:
    """Return the answer to one request: the result under `done`, or the reason under `refused`.

    Both have the request's `id`, where it has one.
    """
    if line.count(b"{") + line.count(b"[") > MAX_BRACKETS:
        return {"refused": "the request is nested too deep"}
    request_id: dict[str, Any] = {}
    try:
        request = json.loads(line)
        if isinstance(request, dict) and isinstance(request.get("id"), str):
            request_id = {"id": request["id"]}
        return {"done": _result_of(signer, request), **request_id}
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        return {"refused": str(error)[:300] or "this is not a valid request", **request_id}
    except Refusal as error:
        return {"refused": str(error), **request_id}


def _result_of(signer: Signer, request: Any) -> Any:
    """Do the operation that a request names; raises Refusal for any other.

    Messages are read field by field into their types, so only what is shown is signed.
    """
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
        item = signer_protocol.read(signer_protocol.BARE[verb], request.get("message"))
        return signer.sign_item(item).hex()
    if verb == "sign_tx":
        unsigned = signer_protocol.read(signer_protocol.BARE[verb], request.get("message"))
        transaction, raw = signer.sign_tx(unsigned)
        return {"transaction": transaction, "raw": raw.hex()}
    raise Refusal(f"there is no operation {verb[:40]!r}")


class _Handler(socketserver.StreamRequestHandler):
    """Serves one connection: a request a line, an answer a line."""

    server: _Server

    def handle(self) -> None:
        """Answer requests until the other end closes; nobody but this user is served."""
        if not _is_same_user(self.request):
            return
        while line := self.rfile.readline(signer_protocol.MAX_BYTES + 1):
            if len(line) > signer_protocol.MAX_BYTES:
                self._send({"refused": "the request is too long"})
                return
            self._send(answer(self.server.signer, line))

    def _send(self, document: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(document).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, signer: Signer) -> None:
        self.signer = signer
        # The socket is made with this mode, so it is not open to others even for a moment.
        before = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(before)


def _is_same_user(connection: socket.socket) -> bool:
    """Return whether this user is at the other end; True where the system cannot tell."""
    if not hasattr(socket, "SO_PEERCRED"):  # Linux has it; elsewhere the mode of the socket counts
        return True
    ucred = "3i"  # process, user and group, see unix(7)
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(ucred)
    )
    _, user, _ = struct.unpack(ucred, credentials)
    return int(user) == os.getuid()


def main() -> None:
    """Unlock the key, serve the socket, and end when standard input does."""
    orders = json.loads(sys.stdin.readline())
    try:
        signer = keystore.unlock(
            Path(orders["keystore"]), orders["passphrase"], real=orders["real"]
        )
    except AgentKitError as error:
        _report({"error": type(error).__name__, "message": str(error), "hint": error.hint})
        raise SystemExit(1) from None
    path = Path(orders["socket"])
    del orders  # which hold the passphrase
    with _Server(path, signer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _report({"address": signer.address, "socket": str(path)})
        sys.stdin.read()  # returns when the process that started this one is gone
        server.shutdown()
    path.unlink(missing_ok=True)


def serve(path: Path, signer: Signer) -> None:
    """Serve a socket until this process is told to end; raises ConfigError where it is taken."""
    try:
        server = _Server(path, signer)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be listened at: {error.strerror}", hint="name another --socket"
        ) from error
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        server.serve_forever()
    except KeyboardInterrupt:
        return
    finally:
        server.server_close()
        path.unlink(missing_ok=True)


def _interrupt(*_: object) -> None:
    """End on SIGTERM as on Ctrl+C, so that the socket is removed."""
    raise KeyboardInterrupt


def _report(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)  # noqa: T201  # to the process that started this one


if __name__ == "__main__":
    main()

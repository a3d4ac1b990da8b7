"""A signer whose key is in another process."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentkit import errors
from agentkit.errors import ConfigError, ProtocolBroken, StoreUnavailable
from agentkit.keys import keystore, signer_protocol
from agentkit.keys.messages import (
    Accept,
    Authorization,
    Delivery,
    Domain,
    ItemMessage,
    Quote,
    Release,
    Transfer,
    UnsignedTransaction,
    Voucher,
)
from agentkit.keys.signer import Signer
from agentkit.net.environment import child_environment

SECONDS = 30.0
"""How long the process may take for one operation."""

STARTING_SECONDS = 60.0


class ProcessSigner:
    """Has the operations of `keys.signer.Signer` done by a process that has the key.

    This process never sees the key; what it can be made to do is what the operations allow.
    Raises StoreUnavailable when the process has gone: nothing was signed then.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._connection: socket.socket | None = None
        self._child: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        who = self._ask(do="who")
        self._address, self._public = str(who["address"]), bytes.fromhex(who["public_key"])

    @classmethod
    def start(cls, keystore: Path, passphrase: str, *, real: bool) -> ProcessSigner:
        """Start a process for a key file and return its signer; see `keys.keystore.unlock`."""
        folder = Path(tempfile.mkdtemp(prefix="agentkit-"))  # mode 700
        path = folder / "signer"
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "agentkit.keys.signer_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        orders = {"keystore": str(keystore), "passphrase": passphrase, "real": real}
        try:
            _started(child, {**orders, "socket": str(path)})
            signer = cls(path)
        except BaseException:
            _end(child, folder)
            raise
        signer._child, signer._folder = child, folder
        return signer

    def close(self) -> None:
        """End the connection, and the process if this signer started it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._child is not None and self._folder is not None:
            _end(self._child, self._folder)

    def __repr__(self) -> str:
        return f"ProcessSigner({self._address})"

    def __reduce__(self) -> str:
        raise TypeError("a signer cannot be pickled")

    @property
    def address(self) -> str:
        return self._address

    @property
    def public_key(self) -> bytes:
        return self._public

    def sign_voucher(self, domain: Domain, voucher: Voucher) -> bytes:
        return self._typed("sign_voucher", domain, voucher)

    def sign_release(self, domain: Domain, release: Release) -> bytes:
        return self._typed("sign_release", domain, release)

    def sign_quote(self, domain: Domain, quote: Quote) -> bytes:
        return self._typed("sign_quote", domain, quote)

    def sign_accept(self, domain: Domain, accept: Accept) -> bytes:
        return self._typed("sign_accept", domain, accept)

    def sign_authorization(self, domain: Domain, authorization: Authorization) -> bytes:
        return self._typed("sign_authorization", domain, authorization)

    def sign_transfer(self, domain: Domain, transfer: Transfer) -> bytes:
        return self._typed("sign_transfer", domain, transfer)

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes:
        return self._typed("sign_delivery", domain, delivery)

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        signed = self._ask(do="sign_tx", message=signer_protocol.written(transaction))
        return str(signed["transaction"]), bytes.fromhex(signed["raw"])

    def sign_item(self, item: ItemMessage) -> bytes:
        return bytes.fromhex(self._ask(do="sign_item", message=signer_protocol.written(item)))

    def derive(self, info: str) -> bytes:
        return bytes.fromhex(self._ask(do="derive", info=info))

    # -- inside ----------------------------------------------------------------------------------

    def _typed(self, verb: str, domain: Domain, message: object) -> bytes:
        asked = {
            "domain": signer_protocol.written(domain),
            "message": signer_protocol.written(message),
        }
        return bytes.fromhex(self._ask(do=verb, **asked))

    def _ask(self, **request: Any) -> Any:
        """Have an operation done.

        An answer that does not come, or is another request's, ends the connection; so does whatever
        interrupts the wait, because the answer that is still to come would be taken for the next.
        """
        identity = secrets.token_hex(8)
        line = json.dumps({**request, "id": identity}).encode() + b"\n"
        with self._lock:
            try:
                answer = json.loads(self._said(line))
                if not isinstance(answer, dict) or answer.get("id") != identity:
                    raise ValueError("the answer belongs to another request")
            except BaseException as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                if not isinstance(error, (OSError, ValueError)):
                    raise
                raise StoreUnavailable(
                    f"the process that signs does not answer at {self._path}",
                    hint="start the agent again, or `agentkit wallet signer` if you run it apart",
                ) from error
        if "refused" in answer:
            raise ProtocolBroken(f"the process that signs refuses: {answer['refused']}")
        return answer["done"]

    def _said(self, line: bytes) -> bytes:
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(SECONDS)
            self._connection.connect(str(self._path))
        self._connection.sendall(line)
        parts = bytearray()
        while not parts.endswith(b"\n"):
            part = self._connection.recv(1 << 16)
            if not part or len(parts) > signer_protocol.MOST_BYTES:
                raise OSError("the answer ends in its midst")
            parts += part
        return bytes(parts)


def open_signer(path: Path, secret: Callable[[], str], where: str, *, real: bool) -> Signer:
    """Return the signer of a key file: `here`, in a `process` of its own, or behind a socket.

    `secret` returns the passphrase, and is asked only where it is needed.  Raises as
    `keys.keystore.unlock`, and StoreUnavailable.
    """
    if where == "here":
        return keystore.unlock(path, secret(), real=real)
    if where == "process":
        return ProcessSigner.start(path, secret(), real=real)
    return ProcessSigner(Path(where).expanduser())


def _started(child: subprocess.Popen[str], orders: dict[str, Any]) -> None:
    """Give a process its orders; raises what kept it from carrying them out."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(json.dumps(orders) + "\n")
        child.stdin.flush()
    watch = threading.Timer(STARTING_SECONDS, child.kill)
    watch.start()
    said = child.stdout.readline()
    watch.cancel()
    try:
        told = json.loads(said)
    except ValueError as error:
        raise ConfigError(
            "the process that signs does not start", hint="run `agentkit doctor`"
        ) from error
    if "error" in told:
        kind = getattr(errors, told["error"], ConfigError)
        raise kind(told["message"], hint=told["hint"])


def _end(child: subprocess.Popen[str], folder: Path) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    shutil.rmtree(folder, ignore_errors=True)

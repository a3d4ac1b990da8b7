"""A signer whose key is in another process, which it talks to over a unix socket."""

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
from agentkit.keys.channel_messages import ChannelVoucher, ClaimBatch, Order, Refund
from agentkit.keys.messages import (
    Accept,
    Delivery,
    Domain,
    ItemMessage,
    Quote,
    ReceiveAuthorization,
    Release,
    TransferAuthorization,
    UnsignedTransaction,
    Voucher,
)
from agentkit.keys.permit2_messages import UptoPermit
from agentkit.keys.signer import Signer
from agentkit.keys.statement_messages import OfferStatement, ReceiptStatement
from agentkit.net.environment import child_environment

SECONDS = 30.0
"""Seconds that the process may take for one operation."""

STARTING_SECONDS = 60.0
"""Seconds that the process may take to start and to decrypt the key."""


class ProcessSigner:
    """Has the operations of `keys.signer.Signer` done by a process that has the key.

    This process never sees the key, so whoever takes it over can sign only what the operations
    allow.  Every operation raises StoreUnavailable when the other process does not answer, and
    ProtocolBroken when it refuses.
    """

    def __init__(self, path: Path) -> None:
        """Connect to the socket at `path`."""
        self._path = path
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._child: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        identity = self._ask(do="who")
        self._address = str(identity["address"])
        self._public = bytes.fromhex(identity["public_key"])

    @classmethod
    def start(cls, keystore: Path, passphrase: str, *, real: bool) -> ProcessSigner:
        """Start a process for a key file and return its signer; raises as `keys.keystore.unlock`.

        The passphrase goes through a pipe: arguments and environment could be read by others.
        """
        folder = Path(tempfile.mkdtemp(prefix="agentkit-"))  # mode 700: the socket is ours alone
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
            _give_orders(child, {**orders, "socket": str(path)})
            signer = cls(path)
        except BaseException:
            _end(child, folder)
            raise
        signer._child = child
        signer._folder = folder
        return signer

    def close(self) -> None:
        """Close the connection, and end the process if this signer started it."""
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

    def sign_authorization(self, domain: Domain, authorization: ReceiveAuthorization) -> bytes:
        return self._typed("sign_authorization", domain, authorization)

    def sign_transfer(self, domain: Domain, transfer: TransferAuthorization) -> bytes:
        return self._typed("sign_transfer", domain, transfer)

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes:
        return self._typed("sign_delivery", domain, delivery)

    def sign_channel_voucher(self, domain: Domain, voucher: ChannelVoucher) -> bytes:
        return self._typed("sign_channel_voucher", domain, voucher)

    def sign_refund(self, domain: Domain, refund: Refund) -> bytes:
        return self._typed("sign_refund", domain, refund)

    def sign_claims(self, domain: Domain, claims: ClaimBatch) -> bytes:
        return self._typed("sign_claims", domain, claims)

    def sign_order(self, domain: Domain, order: Order) -> bytes:
        return self._typed("sign_order", domain, order)

    def sign_upto(self, domain: Domain, permit: UptoPermit) -> bytes:
        return self._typed("sign_upto", domain, permit)

    def sign_offer(self, domain: Domain, offer: OfferStatement) -> bytes:
        return self._typed("sign_offer", domain, offer)

    def sign_receipt(self, domain: Domain, receipt: ReceiptStatement) -> bytes:
        return self._typed("sign_receipt", domain, receipt)

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        signed = self._ask(do="sign_tx", message=signer_protocol.written(transaction))
        return str(signed["transaction"]), bytes.fromhex(signed["raw"])

    def sign_item(self, item: ItemMessage) -> bytes:
        return bytes.fromhex(self._ask(do="sign_item", message=signer_protocol.written(item)))

    def derive(self, info: str) -> bytes:
        return bytes.fromhex(self._ask(do="derive", info=info))

    # -- inside ----------------------------------------------------------------------------------

    def _typed(self, verb: str, domain: Domain, message: object) -> bytes:
        """Have a typed message signed in its domain (EIP-712)."""
        signature = self._ask(
            do=verb,
            domain=signer_protocol.written(domain),
            message=signer_protocol.written(message),
        )
        return bytes.fromhex(signature)

    def _ask(self, **request: Any) -> Any:
        """Have an operation done and return its result.

        After any failure the connection is closed, also when the wait was interrupted: the answer
        could still come, and would be taken for that of the next request.
        """
        request_id = secrets.token_hex(8)
        line = json.dumps({**request, "id": request_id}).encode() + b"\n"
        # One request at a time: answers come in the order of the requests.
        with self._lock:
            try:
                answer = json.loads(self._exchange(line))
                if not isinstance(answer, dict) or answer.get("id") != request_id:
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

    def _exchange(self, line: bytes) -> bytes:
        """Send one line and return the line that answers it; raises OSError without one."""
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(SECONDS)
            self._connection.connect(str(self._path))
        self._connection.sendall(line)

        answer = bytearray()
        while not answer.endswith(b"\n"):
            part = self._connection.recv(1 << 16)
            if not part:
                raise OSError("the signer closed the connection before the answer was complete")
            if len(answer) > signer_protocol.MAX_BYTES:
                raise OSError("the signer's answer is too long")
            answer += part
        return bytes(answer)


def open_signer(path: Path, secret: Callable[[], str], where: str, *, real: bool) -> Signer:
    """Return the signer of a key file.

    `where` is "here" (in this process), "process" (in a new process) or the path of a socket that
    a process listens at.  `secret` returns the passphrase; it is called only where one is needed.
    Raises as `keys.keystore.unlock`, and StoreUnavailable.
    """
    if where == "here":
        return keystore.unlock(path, secret(), real=real)
    if where == "process":
        return ProcessSigner.start(path, secret(), real=real)
    return ProcessSigner(Path(where).expanduser())


def _give_orders(child: subprocess.Popen[str], orders: dict[str, Any]) -> None:
    """Send a process its orders and wait until it serves; raises the error that it reports."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):  # a child that has ended says why on its output
        child.stdin.write(json.dumps(orders) + "\n")
        child.stdin.flush()
    watch = threading.Timer(STARTING_SECONDS, child.kill)
    watch.start()
    line = child.stdout.readline()
    watch.cancel()
    try:
        report = json.loads(line)
    except ValueError as error:
        raise ConfigError(
            "the process that signs does not start", hint="run `agentkit doctor`"
        ) from error
    if "error" in report:
        kind = getattr(errors, report["error"], ConfigError)
        raise kind(report["message"], hint=report["hint"])


def _end(child: subprocess.Popen[str], folder: Path) -> None:
    """End a process by closing its input, kill it after 5 s, and remove its socket's folder."""
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

"""Answers what a state file is, before anything is written to it; makes a new one.

A file of this schema is not written to when it is opened.  One of an older schema is migrated
(`journal.migrations`), one of a newer schema is refused and left as it is, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from agentkit.errors import JournalDamaged, StateTooNew, StoreUnavailable, WrongKey
from agentkit.journal.fork_safety import Connection, closing
from agentkit.journal.store import SCHEMA, SCHEMA_VERSION, connect

Meta = Mapping[str, str]
"""The table `meta`: `schema`, `wallet`, and from schema 4 on `instance`, the file's name."""

NAME_DIGITS = 8
"""Digits of a state file's random name, before its check digits."""


def read_meta(path: Path) -> Meta | None:
    """Return the table `meta` of a state file, None where there is no file yet; writes nothing.

    Raises StateTooNew, and JournalDamaged if it is not a state file.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    unfinished = _has_unfinished_writes(path)
    try:
        # Opened as immutable, SQLite takes no lock, applies no log, and makes no file beside it:
        # so a file that is refused stays as it is.
        meta = _query_meta(path, "immutable=1")
        _refuse_newer(path, meta)  # the log cannot make it older: the schema only rises
    except sqlite3.Error:
        unfinished = True  # most likely another process is writing; wait for it, with locks
    if unfinished:
        meta = _query_meta(path, "mode=ro")
        _refuse_newer(path, meta)
    if meta is not None:
        schema_of(path, meta)
    return meta


def schema_of(path: Path, meta: Meta) -> int:
    """Return the schema that a file says it has; raises JournalDamaged if that is not one."""
    text = meta.get("schema", "")
    schema = _number(text)
    if not 0 < schema <= SCHEMA_VERSION:
        raise JournalDamaged(path, "its own description", f"{text!r} is not a schema")
    return schema


def make(path: Path, address: str) -> None:
    """Make the tables of a new state file, unless another process has just made them."""
    with closing(connect(path)) as db:
        db.execute("begin immediate")
        if not _tables(db):
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            meta = {"schema": str(SCHEMA_VERSION), "wallet": address, "instance": new_instance()}
            db.executemany("insert into meta values(?, ?)", meta.items())
        db.execute("commit")


def check_writable(path: Path) -> None:
    """Raise StoreUnavailable if a state file cannot be written, before money depends on it."""
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        raise StoreUnavailable(
            f"the state file {path} cannot be written",
            hint=f"check the permissions of {path.parent}; nothing was changed",
        )


def check_wallet(path: Path, meta: Meta, address: str) -> None:
    """Raise WrongKey when a state file is another wallet's."""
    if meta.get("wallet") != address:
        raise WrongKey(
            f"the state file {path} belongs to wallet {meta.get('wallet')!r}, not {address}",
            hint="set AGENTKIT_HOME to this wallet's own folder",
        )


def check_instance(path: Path, meta: Meta) -> None:
    """Raise JournalDamaged if the name of a state file was changed, or `meta` has other rows."""
    instance = meta.get("instance", "")
    if instance[NAME_DIGITS:] != _check_digits(instance[:NAME_DIGITS]):
        raise JournalDamaged(path, "the name of the file itself", "it was changed")
    if len(meta) != 3:
        raise JournalDamaged(path, "its own description", f"it says {', '.join(sorted(meta))}")


def new_instance() -> str:
    """Return a random name for a state file, with check digits at its end."""
    name = secrets.token_hex(NAME_DIGITS // 2)
    return name + _check_digits(name)


# -- helpers -----------------------------------------------------------------------------------


def _check_digits(name: str) -> str:
    """Return four hex digits that depend on a name, so that a changed one is noticed."""
    return hashlib.sha256(f"agentkit/instance {name}".encode()).hexdigest()[:4]


def _has_unfinished_writes(path: Path) -> bool:
    """Return whether SQLite's log lies beside the file: a process writes, or was killed."""
    logs = (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "journal"))
    return any(log.exists() and log.stat().st_size for log in logs)


def _query_meta(path: Path, mode: str) -> Meta | None:
    """Return the table `meta`, None for a database without tables; raises JournalDamaged."""
    uri = f"{path.absolute().as_uri()}?{mode}"
    db = sqlite3.connect(
        uri, uri=True, isolation_level=None, factory=Connection, check_same_thread=False
    )
    with closing(db):
        tables = _tables(db)
        if not tables:
            return None
        if "meta" not in tables or _has_logic(db):
            raise JournalDamaged(path, "the file itself", "it is not a state file of agentkit")
        return dict(db.execute("select name, value from meta").fetchall())


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("select name from sqlite_master where type='table'")}


def _has_logic(db: sqlite3.Connection) -> bool:
    """Return whether the file has views or triggers: SQL that would run when rows are used."""
    logic = db.execute("select 1 from sqlite_master where type in ('view', 'trigger') limit 1")
    return logic.fetchone() is not None


def _refuse_newer(path: Path, meta: Meta | None) -> None:
    """Raise StateTooNew if a file has a schema that a later agentkit made."""
    schema = _number((meta or {}).get("schema", ""))
    if schema > SCHEMA_VERSION:
        raise StateTooNew(
            path, f"schema {schema}", f"this agentkit reads schemas up to {SCHEMA_VERSION}"
        )


def _number(text: str) -> int:
    """Return the number of up to nine digits that a text is, 0 for any other text."""
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    return int(text) if is_number else 0

"""Opens a state file: reads what it is before anything is written, makes it, or migrates it.

A file of this schema is not written to.  One of an older schema is migrated, one of a newer
schema is refused and left as it is, byte for byte.
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
"""What a state file says of itself: `schema`, `wallet`, and from schema 4 on its `instance`."""


def read_meta(path: Path) -> Meta | None:
    """Return what a state file says of itself, None where there is none yet; writes nothing.

    Raises StateTooNew, JournalDamaged when it is no state file.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    unfinished = _has_unfinished_writes(path)
    try:
        # SQLite takes an immutable file as it lies there: no lock, no log, nothing beside it.
        meta = _query_meta(path, "immutable=1")
        _refuse_newer(path, meta)  # the log cannot make it older: the schema only rises
    except sqlite3.Error:
        unfinished = True  # most likely another process is writing; look as its peer
    if unfinished:
        meta = _query_meta(path, "mode=ro")
        _refuse_newer(path, meta)
    if meta is not None:
        schema_of(path, meta)
    return meta


def schema_of(path: Path, meta: Meta) -> int:
    """Return the schema that a file says it has; raises JournalDamaged when it says none."""
    schema = _number(meta.get("schema", ""))
    if not 0 < schema <= SCHEMA_VERSION:
        told = meta.get("schema", "")
        raise JournalDamaged(path, "its own description", f"{told!r} is not a schema")
    return schema


def make(path: Path, address: str) -> None:
    """Make the tables of a new state file, unless another process was faster."""
    with closing(connect(path)) as db:
        db.execute("begin immediate")
        if not _tables(db):
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            about = {"schema": str(SCHEMA_VERSION), "wallet": address, "instance": new_instance()}
            db.executemany("insert into meta values(?, ?)", about.items())
        db.execute("commit")


def check_writable(path: Path) -> None:
    """Raise StoreUnavailable when nothing could be written to a state file, before it has to be."""
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
    """Raise JournalDamaged when the name of a state file was changed, or something beside it."""
    instance = meta.get("instance", "")
    if instance[8:] != _mark(instance[:8]):
        raise JournalDamaged(path, "the name of the file itself", "it was changed")
    if len(meta) != 3:
        raise JournalDamaged(path, "its own description", f"it says {', '.join(sorted(meta))}")


def new_instance() -> str:
    """Return a new name for a state file, the end of which shows that it is one."""
    name = secrets.token_hex(4)
    return name + _mark(name)


# -- inside --------------------------------------------------------------------------------------


def _mark(name: str) -> str:
    return hashlib.sha256(f"agentkit/instance {name}".encode()).hexdigest()[:4]


def _has_unfinished_writes(path: Path) -> bool:
    """Whether a log lies beside the file, of a process that writes or was killed."""
    logs = (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "journal"))
    return any(log.exists() and log.stat().st_size for log in logs)


def _query_meta(path: Path, mode: str) -> Meta | None:
    """Read the file's own description; None for a database without tables."""
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
    """Whether a view or a trigger would compute something where rows are read or written."""
    found = db.execute("select 1 from sqlite_master where type in ('view', 'trigger') limit 1")
    return found.fetchone() is not None


def _refuse_newer(path: Path, meta: Meta | None) -> None:
    schema = _number((meta or {}).get("schema", ""))
    if schema > SCHEMA_VERSION:
        raise StateTooNew(
            path, f"schema {schema}", f"this agentkit reads schemas up to {SCHEMA_VERSION}"
        )


def _number(text: str) -> int:
    """Return a small number that was written down, 0 for anything else."""
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    return int(text) if is_number else 0

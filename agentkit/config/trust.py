"""Records which folders a person trusts, and for exactly which settings.

A record holds the folder's absolute path and, per setting, a digest of its value: enough to notice
and name a change, and never a secret. Records lie beside the user's own settings, mode 600. Folders
in `AGENTKIT_TRUST` are trusted without a record, for CI, containers and cron.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agentkit.config.consent import Setting, written_keys
from agentkit.config.reading import SettingsFile
from agentkit.errors import ConfigError, Untrusted
from agentkit.file_io import read_once

USER_FOLDER = Path("~/.config/agentkit")
VERSION = 1
MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_NAMES = 6
"""How many settings the sentence of an error names."""

Digests = Mapping[str, str]
"""The digest of each consented value, by key."""

_agreed: set[tuple[Path, frozenset[tuple[str, str]]]] = set()
"""What a person agreed to in this process, for files whose consent is not kept."""


def check_trust(file: SettingsFile, needed: Mapping[str, Setting]) -> None:
    """Raise Untrusted unless a person consented to these settings of a folder.

    Consent to a file that others can change is not kept: it counts for this process only.
    """
    if not needed or (file.folder, _as_set(_digests(needed))) in _agreed:
        return
    recorded = {} if file.shared else read_records().get(file.folder)
    if not file.shared and file.folder in _folders_of_environment():
        return
    changed = _changes(file, needed, recorded)
    if changed or recorded is None or file.shared:
        raise _untrusted(file, needed, changed, known=bool(recorded))


def consent_request(file: SettingsFile, needed: Mapping[str, Setting]) -> Untrusted:
    """Return what a person would be asked about a folder, whether or not it was consented to."""
    recorded = read_records().get(file.folder)
    return _untrusted(file, needed, _changes(file, needed, recorded), known=bool(recorded))


def grant(request: Untrusted) -> None:
    """Record a person's consent to exactly what the request showed.

    In a file that others can change it counts until this process ends, and is not recorded.
    """
    if request.shared:
        _agreed.add((request.folder, _as_set(request.digests)))
    else:
        _replace_record(request.folder, dict(request.digests))


def forget(folder: Path) -> bool:
    """Take consent to a folder back; False when there was none."""
    return _replace_record(folder, {})


# -- what is asked -------------------------------------------------------------------------------


def _changes(
    file: SettingsFile, needed: Mapping[str, Setting], recorded: Digests | None
) -> dict[str, str]:
    """Return the keys that consent does not cover: each is `new`, `changed` or `removed`.

    A removed key matters too: what it covered falls back to another value, beside the rest.
    """
    known = recorded or {}
    changes = {
        key: "changed" if key in known else "new"
        for key, setting in needed.items()
        if known.get(key) != setting.digest
    }
    present = written_keys(file.data) | set(needed)
    return changes | {key: "removed" for key in known if key not in present}


def _untrusted(
    file: SettingsFile, needed: Mapping[str, Setting], changed: Mapping[str, str], *, known: bool
) -> Untrusted:
    """Return the request for consent to a folder's settings, or to those that changed."""
    path = file.full_path
    names = _listed(list(changed or needed))
    if file.shared:
        message = f"{path} is not trusted, for {file.shared}; it sets {names}"
        hint = f"name the file if you trust it: --config {shlex.quote(str(path))}"
    else:
        since = "was changed since you trusted it:" if known else "is not trusted and sets"
        message = f"{path} {since} {names}"
        hint = f"run `agentkit trust {shlex.quote(str(file.folder))}` if you trust these settings"
    return Untrusted(
        message,
        hint=hint,
        folder=file.folder,
        shown={key: setting.shown for key, setting in needed.items()},
        digests=_digests(needed),
        changed=changed,
        shared=file.shared,
    )


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _digests(needed: Mapping[str, Setting]) -> dict[str, str]:
    return {key: setting.digest for key, setting in needed.items()}


def _as_set(digests: Digests) -> frozenset[tuple[str, str]]:
    return frozenset(digests.items())


def _folders_of_environment() -> set[Path]:
    """Return the folders in `AGENTKIT_TRUST`; raises ConfigError for a relative one.

    A `.` in a profile would trust every folder that a shell ever enters.
    """
    folders = set()
    for text in filter(None, os.environ.get("AGENTKIT_TRUST", "").split(os.pathsep)):
        folder = Path(text).expanduser()
        if not folder.is_absolute():
            raise ConfigError(
                f"AGENTKIT_TRUST names {text!r}, which is not an absolute path",
                hint="write the folder's absolute path into AGENTKIT_TRUST",
            )
        folders.add(folder.resolve())
    return folders


# -- the records ---------------------------------------------------------------------------------


def read_records() -> dict[Path, dict[str, str]]:
    """Return the consented digests of every recorded folder; raises ConfigError.

    Records that others could have written are refused.
    """
    path = _records_path()
    try:
        raw, info = read_once(path, MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint=f"check the permissions of {path}"
        ) from error
    if info.st_uid not in (os.geteuid(), 0) or info.st_mode & 0o022:
        raise ConfigError(
            f"others can write to {path}, which says what you trust",
            hint=f"remove {path} and trust your folders again",
        )
    return _parse_records(raw, path)


def _parse_records(raw: bytes, path: Path) -> dict[Path, dict[str, str]]:
    """Read the records of consent; raises ConfigError for damaged or newer ones."""
    try:
        document = json.loads(raw)
        if document["version"] != VERSION:
            raise ConfigError(
                f"{path} was written by a newer agentkit", hint="update agentkit to read it"
            )
        return {
            Path(folder): {str(key): str(digest) for key, digest in settings.items()}
            for folder, settings in document["folders"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged", hint=f"remove {path} and trust your folders again"
        ) from error


def _replace_record(folder: Path, digests: dict[str, str]) -> bool:
    """Write the record of one folder, or take it out; returns whether there was one.

    A lock is held from reading to writing, so of two processes neither loses what the other wrote.
    """
    with _locked():
        records = read_records()
        before = records.pop(folder, None)
        if digests:
            records[folder] = digests
        if digests or before is not None:
            _write_records(records)
    return before is not None


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock on the records, so that two processes do not overwrite each other's."""
    folder = USER_FOLDER.expanduser()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "trust.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_records(records: Mapping[Path, Digests]) -> None:
    """Write all records, whole or not at all; called with the lock held."""
    path = _records_path()
    draft = path.with_name(".trust.json.draft")
    document = {
        "version": VERSION,
        "folders": {str(folder): dict(digests) for folder, digests in sorted(records.items())},
    }
    draft.unlink(missing_ok=True)  # left behind by a process that was killed here
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _records_path() -> Path:
    return USER_FOLDER.expanduser() / "trust.json"

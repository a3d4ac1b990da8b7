"""Reads settings and secret files once: the bytes that are judged are the bytes that are used."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit import strict_toml
from agentkit.errors import ConfigError
from agentkit.file_io import read_once

MAX_SETTINGS_BYTES = 64 * 1024
MAX_SECRET_BYTES = 64 * 1024
MAX_DEPTH = 8
"""How deep tables and lists of a settings file may nest; the deepest setting there is has four."""


@dataclass(frozen=True)
class SettingsFile:
    """A settings file as it was read: its values, where it lies, and who else can change it.

    `shared` says in words why others than this user could change the file or its folder, and is
    empty when they cannot.
    """

    path: Path
    folder: Path
    data: dict[str, Any]
    shared: str = ""

    @property
    def full_path(self) -> Path:
        """The file's absolute path, the folder's symlinks resolved."""
        return self.folder / self.path.name


def read_settings_file(path: Path) -> SettingsFile | None:
    """Return a TOML file of settings, None when there is none.

    Raises ConfigError for one that cannot be read, is larger or deeper than settings ever are, is
    not UTF-8, or is not TOML. A byte order mark, which editors on Windows write, is skipped.
    """
    try:
        raw, info = read_once(path, MAX_SETTINGS_BYTES)
        folder = path.parent.resolve()
        folder_info = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            hint=f"check the permissions of {path}, or move it away",
        ) from error

    shared = _how_shared(info, "it") or _how_shared(folder_info, "its folder")
    return SettingsFile(path=path, folder=folder, data=parse_settings(raw, path), shared=shared)


def parse_settings(raw: bytes, path: Path) -> dict[str, Any]:
    """Return the values in the bytes of a settings file; raises ConfigError naming `path`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not text in UTF-8", hint=f"save {path} as UTF-8 and try again"
        ) from error
    try:
        data = strict_toml.loads(text)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a TOML file: {error}", hint=f"mend {path}") from error
    if _is_deeper_than(data, MAX_DEPTH):
        raise _too_deep(path)
    return data


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(f"{path} nests deeper than settings do", hint=f"mend {path}")


def _is_deeper_than(value: object, limit: int) -> bool:
    """Return whether tables and lists nest deeper than `limit`, without recursion."""
    level = [value]
    for _ in range(limit + 1):
        level = [part for container in level for part in _parts(container)]
        if not level:
            return False
    return True


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


# -- who else can change a file ------------------------------------------------------------------


def _how_shared(info: os.stat_result, what: str) -> str:
    """Return in words why others than this user and root could change a file or folder."""
    if info.st_uid not in (os.geteuid(), 0):
        return f"{what} belongs to another user"
    if info.st_mode & stat.S_IWOTH and not _is_sticky_folder(info):
        return f"everybody can write to {what}"
    if info.st_mode & stat.S_IWGRP and not _is_own_group(info.st_gid):
        return f"others can write to {what}"
    return ""


def _is_sticky_folder(info: os.stat_result) -> bool:
    """Return whether others may add files to a folder, and not replace ours (`/tmp`)."""
    return stat.S_ISDIR(info.st_mode) and bool(info.st_mode & stat.S_ISVTX)


def _is_own_group(group: int) -> bool:
    """Return whether a group is this user's private one.

    Many systems give every user a group of the same name and let it write by default.
    """
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        entry = grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == user.pw_name and set(entry.gr_mem) <= {user.pw_name}

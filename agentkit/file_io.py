"""The files that people name: bounded, whole or not at all, and errors of ours."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from agentkit.errors import ConfigError, StoreUnavailable, WrongInput


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; raises WrongInput.

    A device may have no end, and a pipe is empty when it is read a second time.
    """
    try:
        return read_once(path, limit)[0]
    except FileNotFoundError as error:
        raise WrongInput(
            f"there is no file {path}", hint="give a path that exists, or a URI"
        ) from error
    except OSError as error:
        raise _unreadable(path, limit, error) from error
    except ValueError as error:  # a path with a NUL in it
        raise WrongInput(f"{path!r} is not a path", hint="give the path of a file") from error


def read_once(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a regular file and the facts about those very bytes' file.

    Both come from one descriptor, so the file cannot be exchanged between the two. Raises OSError,
    also for what is not a regular file (a device, a pipe that never ends) or is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(raw) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return raw, info


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all, and leave no draft.

    Raises StoreUnavailable when the disk is full, ConfigError for a path that cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    in_place = path.exists() and not path.is_file()  # like /dev/stdout, which nothing may replace
    try:
        with (path if in_place else draft).open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            if not in_place:
                os.fsync(file.fileno())
        if not in_place:
            draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        what = f"{path} cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise StoreUnavailable(
                what, hint="free some space, or write to another disk"
            ) from error
        hint = "check that its folder exists and can be written"
        raise ConfigError(what, hint=hint) from error


def _unreadable(path: Path, limit: int, error: OSError) -> WrongInput:
    """Return what to say of a file that `read_once` did not read."""
    if error.errno == errno.EINVAL:
        return WrongInput(f"{path} is not a regular file", hint="give the path of a file")
    if error.errno == errno.EFBIG:
        return WrongInput(f"{path} is larger than {limit >> 20} MiB", hint="give a part of it")
    return WrongInput(
        f"{path} cannot be read: {error.strerror}", hint="give a path that exists, or a URI"
    )

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
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise WrongInput(f"{path} is not a regular file", hint="give the path of a file")
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise WrongInput(
            f"there is no file {path}", hint="give a path that exists, or a URI"
        ) from error
    except OSError as error:
        raise WrongInput(
            f"{path} cannot be read: {error.strerror}", hint="give a path that exists, or a URI"
        ) from error
    except ValueError as error:  # a path with a NUL in it
        raise WrongInput(f"{path!r} is not a path", hint="give the path of a file") from error
    if len(data) > limit:
        raise WrongInput(f"{path} is larger than {limit >> 20} MiB", hint="give a part of it")
    return data


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

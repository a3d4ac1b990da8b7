"""Python files that a document names: located without importing, hashed, run as hashed.

To load a function is to run the whole file it stands in, and the `__init__.py` of the packages
around it.  So consent is by the sha256 of whole files, it is asked before anything is imported, and
the bytes that were hashed are the bytes that run: no file is read twice, no `.pyc` is used.  What
such a file imports itself comes by Python's own import, and consent to the file covers it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from agentkit.errors import UntrustedCode, WrongInput

LARGEST_FILE = 8 * 2**20
"""Bytes of the largest Python file that is read."""

_executed: dict[tuple[str, Path], str] = {}
"""The digests of the files that were run by this module, by module and path."""


@dataclass(frozen=True)
class CodeFile:
    """A Python file as it was read once: the module it makes, where it lies, its bytes."""

    module: str
    path: Path
    content: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the whole file."""
        return hashlib.sha256(self.content).hexdigest()

    def __str__(self) -> str:
        return f"{shown(self.path)}  sha256 {self.digest}"


def shown(text: object) -> str:
    """Return a document's path or name as it may be printed: it could paint over the terminal."""
    told = str(text)
    return told if told.isprintable() else ascii(told)


def check_consent(files: Sequence[CodeFile], digests: frozenset[str]) -> None:
    """Raise UntrustedCode, naming every file that is not among the consented `digests`."""
    refused = {file.path: file for file in files if file.digest not in digests}
    if refused:
        raise UntrustedCode(
            tuple(map(str, refused.values())), tuple(file.digest for file in refused.values())
        )


def locate(module: str, file: str = "") -> tuple[CodeFile, ...]:
    """Return the files that run when a module is loaded: its packages' `__init__.py`, then its own.

    Nothing is imported.  `file` is where the module is said to lie; if nothing is there, it is
    looked for as `import` would, among Python sources alone.  Raises WrongInput.
    """
    *parents, name = module.split(".")
    if not all(part and "/" not in part and part.isprintable() for part in (*parents, name)):
        raise WrongInput(f"{module!r} is not the name of a module", hint="write it like pack.part")
    path = _existing(file) or _search(module, file)
    if not parents:
        return (read(path, module),)

    is_package = path.name == "__init__.py"
    own_name = path.parent.name if is_package else path.stem
    folder = path.parent.parent if is_package else path.parent
    if own_name != name or list(folder.parts[-len(parents) :]) != parents:
        raise WrongInput(
            f"{shown(path)} is not where a module {module} would lie", hint=f"move it to {name}.py"
        )
    root = folder.parents[len(parents) - 1]
    packages = [".".join(parents[: depth + 1]) for depth in range(len(parents))]
    inits = [(package, root / package.replace(".", "/") / "__init__.py") for package in packages]
    return (*(read(init, name) for name, init in inits if init.is_file()), read(path, module))


def read(path: Path, module: str) -> CodeFile:
    """Read a Python file once; raises WrongInput for what is not a file of a bearable size."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as opened:  # the opener
            is_file = stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
            content = opened.read(LARGEST_FILE + 1) if is_file else b""
    except (OSError, ValueError) as error:
        raise WrongInput(
            f"there is no Python file {shown(path)}", hint="check the path of the file"
        ) from error
    if not is_file or len(content) > LARGEST_FILE:
        raise WrongInput(
            f"{shown(path)} is not a Python file of at most {LARGEST_FILE} bytes",
            hint="check the path of the file",
        )
    return CodeFile(module, path, content)


def _existing(file: str) -> Path | None:
    """Return where a file lies, links followed; None when there is none."""
    try:
        path = Path(file).resolve()
        return path if file and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no path at all, too long, a loop of links
        return None


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would hold us."""
    return os.open(path, flags | os.O_NONBLOCK)


def _search(module: str, file: str) -> Path:
    """Return the source of a module by its name, as `import` would find it, importing nothing."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # which imports only the parents of a dotted name
        places = list(spec.submodule_search_locations or ()) if spec else []
    except (ImportError, ValueError, AttributeError, KeyError):
        spec, places = None, []
    if not rest and spec and spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin).resolve()
    inner = "/".join(rest)
    for place in places if rest else ():
        for candidate in (Path(place, inner, "__init__.py"), Path(place, f"{inner}.py")):
            if candidate.is_file():
                return candidate.resolve()
    where = f"{shown(file)}, nor " if file else ""
    raise WrongInput(
        f"there is no Python source of the module {module}: not {where}where Python looks",
        hint="put the file where it was, or on PYTHONPATH",
    )


def load(files: Sequence[CodeFile]) -> ModuleType:
    """Return the module of the last file; what is not loaded yet is run.

    Consent is checked before.  Raises WrongInput when a file fails, or when another module of its
    name is imported already.
    """
    module: ModuleType | None = None
    for file in files:
        module = imported(file) or execute(file)
    assert module is not None
    return module


def imported(file: CodeFile) -> ModuleType | None:
    """Return the module of a file if this process has it; raises WrongInput for a namesake.

    One that was run by `execute` from other bytes does not count.
    """
    module = sys.modules.get(file.module)
    if module is None:
        return None
    origin = getattr(module, "__file__", None)
    if not origin or Path(origin).resolve() != file.path:
        raise WrongInput(
            f"{shown(file.path)} cannot be loaded: another module called {file.module} is in use",
            hint="give the file another name, and name that in the graph",
        )
    return module if running_digest(file) == file.digest else None


def running_digest(file: CodeFile) -> str:
    """Return the sha256 of what runs here of a file, which may have been changed since.

    Of a file that Python imported itself, what it says now is all that can be known.
    """
    return _executed.get((file.module, file.path), file.digest)


def execute(file: CodeFile) -> ModuleType:
    """Run a file as a module of its name; raises WrongInput for whatever the file raises.

    `sys.exit` in it is such a failure; `os._exit` ends the process, and nothing can catch it.
    """
    is_package = file.path.name == "__init__.py"
    spec = importlib.util.spec_from_file_location(
        file.module,
        file.path,
        loader=_ReadOnce(file),
        submodule_search_locations=[str(file.path.parent)] if is_package else None,
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(file.module)
    sys.modules[file.module] = module
    try:
        _remember_source(file)
        spec.loader.exec_module(module)
    except BaseException as error:
        if before is None:
            del sys.modules[file.module]
        else:
            sys.modules[file.module] = before
        if isinstance(error, KeyboardInterrupt):
            raise
        raise WrongInput(
            f"{shown(file.path)} cannot be loaded: {type(error).__name__}: {error}",
            hint=f"run python {shown(file.path)}",
        ) from error
    _executed[file.module, file.path] = file.digest
    parent, _, name = file.module.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], name, module)
    return module


def _remember_source(file: CodeFile) -> None:
    """Have `inspect` show the source that runs here, whatever the file on disk says by now.

    An entry without a time of change is what linecache never compares with the disk.
    """
    source = importlib.util.decode_source(file.content)
    lines = source.splitlines(keepends=True)
    linecache.cache[str(file.path)] = (len(source), None, lines, str(file.path))


class _ReadOnce(SourceFileLoader):
    """Runs the bytes that were hashed: neither the file again, nor a compiled copy."""

    def __init__(self, file: CodeFile) -> None:
        super().__init__(file.module, str(file.path))
        self._content = file.content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._content, self.path)
        return code

    def get_data(self, path: str) -> bytes:
        return self._content if path == self.path else super().get_data(path)

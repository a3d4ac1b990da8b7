"""Functions in a graph: stored as where they stand and what they say, found again by both.

A function that another process cannot find (a lambda, a closure, a notebook cell) has no
`module:qualname` that leads to it; it runs only in the process that made it.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentkit.errors import ConfigError, WrongInput
from agentkit.graph import code
from agentkit.graph.code import CodeFile


class CallableSpec(BaseModel):
    """Where a function stands (`module:qualname`, file) and the sha256 of its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    qualname: str
    file: str = ""
    sha256: str = ""

    @property
    def portable(self) -> bool:
        """Whether another process can find this function."""
        return bool(self.sha256) and "<" not in self.qualname

    def bare(self, *, code: bool = True) -> CallableSpec:
        """Return the spec without where the file stands; without `code`, one that all share."""
        return self.model_copy(update={"file": ""}) if code else _SOME_FUNCTION

    def __str__(self) -> str:
        return code.shown(f"{self.module}:{self.qualname}")


_SOME_FUNCTION = CallableSpec(module="", qualname="")


@lru_cache(maxsize=4096)
def describe(fn: Callable[..., Any]) -> CallableSpec:
    """Return the spec of a function; its hash is empty when its source cannot be read.

    Raises WrongInput for what is called but has no name of its own.
    """
    if not hasattr(fn, "__qualname__"):
        raise WrongInput(
            f"{fn!r} has no name to be found again by", hint="wrap it in a function with def"
        )
    module, qualname = fn.__module__ or "__main__", fn.__qualname__
    try:
        source, file = inspect.getsource(fn), inspect.getsourcefile(fn) or ""
    except (OSError, TypeError):
        return CallableSpec(module=module, qualname=qualname)
    if not Path(file).is_file():  # a notebook cell
        return CallableSpec(module=module, qualname=qualname)
    digest = hashlib.sha256(source.encode()).hexdigest()
    return CallableSpec(
        module=module, qualname=qualname, file=str(Path(file).resolve()), sha256=digest
    )


@dataclass(frozen=True)
class Consent:
    """Which code that a document names may run: whole files, and functions by their source.

    `digests` are the sha256 of files.  `functions` are bare specs of functions that this wallet ran
    before; they count where the program has imported their module itself, so that nothing is run
    but the function.  `mended` are the digests among them that somebody agreed to just now:
    functions in those files may say something else than the document has it.
    """

    digests: frozenset[str] = frozenset()
    functions: frozenset[CallableSpec] = frozenset()
    mended: frozenset[str] = frozenset()

    @classmethod
    def to(
        cls,
        digests: Iterable[str],
        functions: Iterable[CallableSpec] = (),
        mended: Iterable[str] = (),
    ) -> Consent:
        """Return consent to files by sha256; raises ConfigError for what is not a sha256."""
        new = frozenset(digest.lower() for digest in mended)
        given = frozenset(digest.lower() for digest in digests) | new
        for digest in given:
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ConfigError(
                    f"{digest!r} is not the sha256 of a file",
                    hint="take the 64 digits that `agentkit plan` shows beside the file",
                )
        return cls(given, frozenset(spec.bare() for spec in functions), new)


NO_CONSENT = Consent()


class CodeReader:
    """Finds functions that a document names; every file is read once, and asked about at once.

    First `need` each function, then `check`, then `find`.
    """

    def __init__(self, consent: Consent = NO_CONSENT) -> None:
        self._consent = consent
        self._located: dict[tuple[str, str], tuple[CodeFile, ...]] = {}

    @property
    def files(self) -> tuple[CodeFile, ...]:
        """The files that were needed, each once."""
        return tuple({f.path: f for files in self._located.values() for f in files}.values())

    def need(self, spec: CallableSpec) -> None:
        """Locate the files of a function; raises WrongInput when they are not to be had here."""
        if not spec.portable:
            raise not_here(spec)
        if not self._ran_before(spec):
            self._locate(spec)

    def need_module(self, module: str) -> None:
        """Locate the files of an installed module; raises WrongInput."""
        self._locate(CallableSpec(module=module, qualname=""))

    def check(self) -> None:
        """Raise UntrustedCode for files that nobody agreed to."""
        code.check_consent(self.files, self._consent.digests)

    def find(self, spec: CallableSpec) -> Callable[..., Any]:
        """Return the function of a spec, running its file if need be; raises WrongInput.

        It may say something else than the spec has it where its file was agreed to as mended.
        """
        module = sys.modules[spec.module] if self._ran_before(spec) else self._load(spec)
        function = _member(module, spec.qualname)
        if not callable(function):
            raise WrongInput(f"there is no function {spec} any more", hint=_again(spec))
        # A name may lead out of the file (helper:subprocess.run), and consent does not.
        actual = describe(function)
        if actual.sha256 != spec.sha256 and not self._is_mended(spec):
            raise WrongInput(
                f"the function {spec} has changed since the run began", hint=_again(spec)
            )
        if (actual.module, actual.qualname) != (spec.module, spec.qualname):
            raise WrongInput(
                f"{spec} is a function of another file, {actual}", hint=f"name {actual} instead"
            )
        return function  # type: ignore[no-any-return]

    def find_in(self, module: str, qualname: str) -> Any:
        """Return what an installed module calls `qualname`, None for nothing; raises WrongInput."""
        return _member(self._load(CallableSpec(module=module, qualname=qualname)), qualname)

    def _ran_before(self, spec: CallableSpec) -> bool:
        """Whether the function was run by this wallet, and the program has its module already."""
        known = self._consent.functions
        return bool(known) and spec.bare() in known and _is_imported(spec)

    def _is_mended(self, spec: CallableSpec) -> bool:
        """Whether somebody agreed just now to the file that a function is loaded from."""
        files = self._located.get((spec.module, spec.file), ())
        return bool(files) and files[-1].digest in self._consent.mended

    def _locate(self, spec: CallableSpec) -> tuple[CodeFile, ...]:
        """Return the files that a function is in, each read once."""
        key = (spec.module, spec.file)
        if key not in self._located:
            self._located[key] = (
                (code.read(_main_file(spec), "__main__"),)
                if spec.module == "__main__"
                else code.locate(spec.module, spec.file)
            )
        return self._located[key]

    def _load(self, spec: CallableSpec) -> ModuleType:
        files = self._locate(spec)
        code.check_consent(files, self._consent.digests)
        return sys.modules["__main__"] if spec.module == "__main__" else code.load(files)


def not_here(spec: CallableSpec) -> WrongInput:
    """Return the error for a function that this process does not have."""
    why = "is not loaded" if spec.portable else "lives only in the process that made the graph"
    return WrongInput(f"{spec} {why}", hint="supply it again with ak.resume(run_id, graph=graph)")


def _member(module: ModuleType, qualname: str) -> Any:
    member: Any = module
    for part in qualname.split("."):
        member = getattr(member, part, None)
    return member


def _is_imported(spec: CallableSpec) -> bool:
    if spec.module == "__main__":
        return str(_main_file(spec)) == spec.file
    return spec.module in sys.modules


def _main_file(spec: CallableSpec) -> Path:
    """Return the script that runs here, if it is the spec's; raises WrongInput."""
    path = Path(getattr(sys.modules["__main__"], "__file__", None) or "-").resolve()
    if str(path) != spec.file:
        script = code.shown(spec.file)
        raise WrongInput(
            f"{spec} stands in the script {script}",
            hint=f"run python {script} if it is yours",
        )
    return path


@contextmanager
def guarding() -> Iterator[None]:
    """Raise RuntimeError for what a user's function raises to end the process, like `sys.exit`.

    Interrupts and cancellation are not the function's, and pass.  `os._exit` cannot be caught.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise RuntimeError(f"the function raised {error!r}") from error


def load_file(path: Path, name: str) -> ModuleType:
    """Run a Python file that the user named as module `name`; raises WrongInput when it fails."""
    return code.execute(code.read(path.resolve(), name))


def _again(spec: CallableSpec) -> str:
    return (
        f"put back the {spec.qualname} the run began with, or go on with the new one:"
        " ak.resume(run_id, graph=graph)"
    )

"""Functions in a graph: stored as where they stand and what they say, found again by both.

A function that another process cannot find (a lambda, a closure, a notebook cell) has no
`module:qualname` that leads to it; it runs only in the process that made it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentkit.errors import WrongInput


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
        """Return the spec without where the file stands, and without `code` without its hash."""
        return self.model_copy(update={"file": ""} if code else {"file": "", "sha256": ""})

    def __str__(self) -> str:
        return f"{self.module}:{self.qualname}"


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


def find(spec: CallableSpec) -> Callable[..., Any]:
    """Return the function a spec describes; raises WrongInput when it is not to be had here."""
    if not spec.portable:
        raise WrongInput(
            f"{spec} lives only in the process that made the graph",
            hint="supply it again with ak.resume(run_id, graph=graph)",
        )
    found: Any = _module(spec)
    for part in spec.qualname.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise WrongInput(f"there is no function {spec} any more", hint=_again(spec))
    if describe(found).sha256 != spec.sha256:
        raise WrongInput(f"the function {spec} has changed since the run began", hint=_again(spec))
    return found  # type: ignore[no-any-return]


def _module(spec: CallableSpec) -> ModuleType:
    if spec.module == "__main__":
        main = sys.modules["__main__"]
        if str(Path(getattr(main, "__file__", None) or "-").resolve()) != spec.file:
            raise WrongInput(
                f"{spec} stands in the script {spec.file}", hint=f"run python {spec.file} again"
            )
        return main
    try:
        return importlib.import_module(spec.module)
    except ImportError:
        return load_file(Path(spec.file), spec.module)


def load_file(path: Path, name: str) -> ModuleType:
    """Import a Python file as module `name`; raises WrongInput when it cannot be loaded."""
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise WrongInput(f"there is no Python file {path}", hint="check the path of the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as wrong:
        del sys.modules[name]
        raise WrongInput(
            f"{path} cannot be loaded: {type(wrong).__name__}: {wrong}", hint=f"run python {path}"
        ) from wrong
    return module


def _again(spec: CallableSpec) -> str:
    return f"put back the {spec.qualname} the run began with, or run the graph anew"

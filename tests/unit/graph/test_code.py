"""Code that a document names: none of it runs before somebody agreed to the bytes that will."""

from __future__ import annotations

import hashlib
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import ConfigError, UntrustedCode, WrongInput
from agentkit.graph import codec
from agentkit.graph.callables import Consent, describe
from agentkit.graph.frozen import FrozenGraph

TIDY = "def tidy(x):\n    return {'ok': True}\n"
MARK = "import pathlib\npathlib.Path({mark!r}).write_text('ran')\n"


def sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Forget what a test imported."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once a stranger's code ran."""
    return tmp_path / "mark"


def document(
    module: str, qualname: str, file: Path | str = "", digest: str = sha256(TIDY), **more: Any
) -> FrozenGraph:
    """Read a graph as a stranger wrote it: one local node that names a function."""
    fn = {"module": module, "qualname": qualname, "file": str(file), "sha256": digest}
    node = {"kind": "local", "name": "b", "fn": fn, **more}
    return codec.decode({"name": "stranger", "nodes": [node]})


def helper(folder: Path, mark: Path, name: str = "stranger_helper") -> Path:
    path = folder / f"{name}.py"
    path.write_text(MARK.format(mark=str(mark)) + TIDY)
    return path


# -- nothing runs before consent -----------------------------------------------------------------


def test_a_file_that_a_graph_names_is_not_run(tmp_path: Path, mark: Path) -> None:
    path = helper(tmp_path, mark)
    graph = document("stranger_helper", "tidy", path)
    with pytest.raises(UntrustedCode, match=str(path)) as raised:
        graph.adopt(None)
    digest = sha256(path.read_bytes())
    assert digest in str(raised.value)
    assert f"--trust-code {digest}" in raised.value.hint
    assert not mark.exists()
    assert [(file.path, file.digest) for file in graph.code_to_load()] == [(path, digest)]
    assert not mark.exists()


def test_consent_to_the_functions_hash_is_not_consent(tmp_path: Path, mark: Path) -> None:
    graph = document("stranger_helper", "tidy", helper(tmp_path, mark))
    with pytest.raises(UntrustedCode):
        graph.adopt(None, consent=Consent.to([sha256(TIDY)]))
    assert not mark.exists()


def test_a_file_runs_that_was_agreed_to(tmp_path: Path, mark: Path) -> None:
    path = helper(tmp_path, mark)
    graph = document("stranger_helper", "tidy", path)
    graph.adopt(None, consent=Consent.to([sha256(path.read_bytes())]))
    assert mark.exists()
    assert graph.functions()["b"](1) == {"ok": True}
    assert graph.code_to_load() == ()


def test_a_module_on_the_path_is_asked_about_too(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would import it by its name alone, from the current folder."""
    path = helper(tmp_path, mark)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with pytest.raises(UntrustedCode, match=str(path)):
        document("stranger_helper", "tidy").adopt(None)
    assert not mark.exists()


def test_the_packages_around_a_module_are_asked_about_too(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").write_text(MARK.format(mark=str(mark)))
    (inner / "__init__.py").write_text("")
    (inner / "leaf.py").write_text("from .sibling import OK\n" + TIDY)
    (inner / "sibling.py").write_text("OK = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for graph in (
        document("outer.inner.leaf", "tidy"),
        document("outer.inner.leaf", "tidy", inner / "leaf.py"),
    ):
        files = graph.code_to_load()
        assert [file.path.relative_to(tmp_path).as_posix() for file in files] == [
            "outer/__init__.py",
            "outer/inner/__init__.py",
            "outer/inner/leaf.py",
        ]
        with pytest.raises(UntrustedCode, match="outer/__init__"):
            graph.adopt(None, consent=Consent.to([files[-1].digest]))
        assert not mark.exists()
    graph.adopt(None, consent=Consent.to([file.digest for file in files]))
    assert mark.exists()
    assert graph.functions()["b"](1) == {"ok": True}


@pytest.mark.parametrize(
    ("module", "qualname"),
    [("os", "system"), ("builtins", "eval"), ("subprocess", "run"), ("os", "popen")],
)
def test_what_this_process_has_imported_is_no_strangers_to_call(module: str, qualname: str) -> None:
    function = getattr(sys.modules.get(module) or __import__(module), qualname)
    digest = describe(function).sha256 or "00" * 32
    graph = document(module, qualname, digest=digest)
    with pytest.raises((UntrustedCode, WrongInput)):
        graph.adopt(None)
    assert graph.remembered == {}


def test_a_name_does_not_lead_out_of_the_file(tmp_path: Path) -> None:
    """Consent is to the file: what it has imported is another's."""
    path = tmp_path / "stranger_imports.py"
    path.write_text("import subprocess\nfrom subprocess import run\n" + TIDY)
    import subprocess

    digest = describe(subprocess.run).sha256
    consent = Consent.to([sha256(path.read_bytes())])
    for qualname in ("subprocess.run", "run"):
        with pytest.raises(WrongInput, match="function of another file"):
            document("stranger_imports", qualname, path, digest).adopt(None, consent=consent)


def test_another_packages_verifier_is_asked_about(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    from agentkit.graph import plugins

    path = tmp_path / "stranger_verifier.py"
    path.write_text(MARK.format(mark=str(mark)) + "class Check:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("v", "stranger_verifier:Check", plugins.VERIFIERS)
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [entry])
    check = {"check": "named", "name": "v"}
    node = {"kind": "infer", "name": "a", "model": "m", "prompt": "x", "verify": [check]}
    graph = codec.decode({"name": "g", "nodes": [node]})
    with pytest.raises(UntrustedCode, match=str(path)):
        graph.adopt(None)
    assert not mark.exists()
    graph.adopt(None, consent=Consent.to([sha256(path.read_bytes())]))
    ((_, factory),) = graph.checks("a")
    assert factory
    assert type(factory()).__name__ == "Check"


# -- the bytes that were hashed are the bytes that run -------------------------------------------


def test_a_compiled_copy_is_not_run_in_place_of_the_file(tmp_path: Path, mark: Path) -> None:
    """A .pyc that pretends to be of the harmless file beside it."""
    path = tmp_path / "stranger_compiled.py"
    evil, harmless = MARK.format(mark=str(mark)) + TIDY, TIDY
    padding = "#" * (len(evil) - len(harmless) - 1) + "\n"
    path.write_text(evil)
    os.utime(path, (1, 1))
    py_compile.compile(str(path))
    path.write_text(harmless + padding)
    os.utime(path, (1, 1))
    assert list((tmp_path / "__pycache__").glob("*.pyc"))
    graph = document("stranger_compiled", "tidy", path)
    graph.adopt(None, consent=Consent.to([sha256(path.read_bytes())]))
    assert graph.functions()["b"](1) == {"ok": True}
    assert not mark.exists()


def test_a_file_that_was_swapped_after_it_was_shown_is_not_run(tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "stranger_swapped.py"
    path.write_text(TIDY)
    graph = document("stranger_swapped", "tidy", path)
    shown = [file.digest for file in graph.code_to_load()]
    helper(tmp_path, mark, "stranger_swapped")
    with pytest.raises(UntrustedCode):
        graph.adopt(None, consent=Consent.to(shown))
    assert not mark.exists()


def test_what_is_recorded_is_what_ran_and_not_what_lies_there_since(
    tmp_path: Path, mark: Path
) -> None:
    """Or a file that is swapped while the run begins could be run by its resume."""
    path = tmp_path / "stranger_recorded.py"
    path.write_text(TIDY)
    graph = document("stranger_recorded", "tidy", path)
    agreed = sha256(path.read_bytes())
    graph.adopt(None, consent=Consent.to([agreed]))
    helper(tmp_path, mark, "stranger_recorded")
    assert graph.code_digests() == {agreed}


def test_a_link_is_shown_as_where_it_leads(tmp_path: Path, mark: Path) -> None:
    path = helper(tmp_path, mark)
    (tmp_path / "pretty.py").symlink_to(path)
    with pytest.raises(UntrustedCode, match=str(path)):
        document("pretty", "tidy", tmp_path / "pretty.py").adopt(None)


def test_a_path_cannot_paint_over_what_is_shown(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "a\x1b[2Jb"
    folder.mkdir()
    (file,) = document("stranger_helper", "tidy", helper(folder, mark)).code_to_load()
    assert str(file).isprintable()


def test_no_error_paints_over_the_terminal_either() -> None:
    for module, file in (("a\x1b[2J", ""), ("gone", "/x\x1b[2J.py"), ("gone\x1b[2J", "x")):
        with pytest.raises(WrongInput) as raised:
            document(module, "q\x1b[2J", file).adopt(None)
        assert str(raised.value).isprintable()


# -- what cannot be loaded -----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["import sys; sys.exit(0)", "raise SystemExit", "1 / 0", "("])
def test_a_file_that_ends_the_process_is_a_failure_of_the_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "stranger_exit.py"
    path.write_text(TIDY + ending + "\n")
    with pytest.raises(WrongInput, match="cannot be loaded") as raised:
        document("stranger_exit", "tidy", path).adopt(
            None, consent=Consent.to([sha256(path.read_bytes())])
        )
    assert raised.value.hint
    assert "stranger_exit" not in sys.modules


def test_a_namesake_does_not_take_the_place_of_a_module(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text(TIDY)
    import json

    with pytest.raises(WrongInput, match="another module called json"):
        document("json", "tidy", path).adopt(None, consent=Consent.to([sha256(path.read_bytes())]))
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    "file",
    ["/dev/zero", "/dev/stdin", "/proc/self/mem", "/", "nowhere.py", "a\0b", "x" * 5000, "\ud800"],
)
def test_what_is_no_file_is_refused_at_once(file: str) -> None:
    with pytest.raises(WrongInput) as raised:
        document("stranger_device", "tidy", file).adopt(None)
    assert raised.value.hint


@pytest.mark.parametrize("module", ["", ".", "a..b", "../a", "a/b", "a\0b", "os.path.", "__main__"])
def test_what_is_no_module_is_refused(module: str) -> None:
    with pytest.raises(WrongInput) as raised:
        document(module, "tidy").adopt(None)
    assert raised.value.hint


def test_a_pipe_does_not_hold_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(WrongInput):
        document("pipe", "tidy", tmp_path / "pipe.py").adopt(None)


def test_consent_is_a_sha256() -> None:
    with pytest.raises(ConfigError, match="'yes' is not the sha256"):
        Consent.to(["yes"])


# -- what needs no consent -----------------------------------------------------------------------


def tidy(x: Any) -> Any:
    return x


def test_a_function_this_wallet_ran_before_may_run_where_its_module_is() -> None:
    """The program has imported the module by itself: nothing new is run but the function."""
    spec = describe(tidy)
    graph = document(spec.module, spec.qualname, spec.file, spec.sha256)
    with pytest.raises(UntrustedCode):
        graph.adopt(None)
    graph.adopt(None, consent=Consent.to([], [spec]))
    assert graph.functions()["b"] is tidy


def test_a_function_this_wallet_ran_before_imports_nothing(tmp_path: Path, mark: Path) -> None:
    path = helper(tmp_path, mark)
    graph = document("stranger_helper", "tidy", path)
    spec = graph.by_name["b"].callables()["fn"]
    with pytest.raises(UntrustedCode):
        graph.adopt(None, consent=Consent.to([], [spec]))
    assert not mark.exists()


def test_what_is_shown_and_agreed_to_changes_no_digest(tmp_path: Path, mark: Path) -> None:
    path = helper(tmp_path, mark)
    graph = document("stranger_helper", "tidy", path)
    before = graph.digest
    path.write_text(path.read_text() + "# more\n")
    assert document("stranger_helper", "tidy", path).digest == before

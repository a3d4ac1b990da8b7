"""An environment without traces of the user's own, and one embedded network for the session."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.kubo import kubo
from support.timing import limit

from agentkit.agent import Agent
from agentkit.embedded import discovery

# What importing makes stays until the end, and there is much of it: the collector would go over it
# a few hundred times while test files are read, and again during the tests.
gc.disable()

# Drawn cases: the same each time, a fifth of these for the unit tier, or new ones each time
# (`--hypothesis-profile=explore`).
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    """Scale the time limit of every test, as `support.timing` scales those inside of them.

    A shell has what it starts in the background ignore Ctrl-C, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("timeout"):
        config.option.timeout = limit(float(config.getini("timeout")))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage again once all is read, but not among what test files and imports made."""
    result = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return result


def pytest_unconfigure() -> None:
    """Let the interpreter take down what was frozen: extension modules report it as leaked else."""
    gc.unfreeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Scale the limit of a test that has one of its own."""
    for mark in item.iter_markers("timeout"):
        item.add_marker(pytest.mark.timeout(limit(mark.args[0])), append=False)
        return


Open = Callable[..., AbstractAsyncContextManager[Agent]]


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reads the user's settings, keys or embedded network.

    Nor does one run with the recursion limit that packages leave behind which only tests import.
    """
    sys.setrecursionlimit(min(sys.getrecursionlimit(), 10_240))
    models = os.environ.get("AGENTKIT_MODELS", str(Path("~/.cache/agentkit/models").expanduser()))
    for name in [name for name in os.environ if name.startswith("AGENTKIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTKIT_MODELS", models)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "nobody"))


@pytest.fixture(scope="session")
def network_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="session")
def network(network_folder: Path) -> Iterator[discovery.NetworkFile]:
    """The embedded network, the real one in its own process, for the whole session."""
    models = os.environ.get("AGENTKIT_MODELS", str(Path("~/.cache/agentkit/models").expanduser()))
    before = os.environ.get("AGENTKIT_MODELS")
    os.environ["AGENTKIT_MODELS"] = models
    found = discovery.ensure(network_folder)
    if before is None:
        del os.environ["AGENTKIT_MODELS"]
    yield found
    discovery.stop(network_folder)


@pytest.fixture(scope="session")
def kubo_rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Kubo node for the session; its RPC's address."""
    with kubo(tmp_path_factory.mktemp("kubo")) as url:
        yield url


@pytest.fixture
def own_folder(
    network: discovery.NetworkFile,
    network_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A trusted folder to work in, with a home of its own; processes here find the network."""
    monkeypatch.setenv("AGENTKIT_TRUST", str(tmp_path))
    monkeypatch.setenv("AGENTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGENTKIT_NETWORK", str(network_folder))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def open_agent(network: discovery.NetworkFile, network_folder: Path, tmp_path: Path) -> Open:
    """Return a function that opens an agent with a home of this test's own."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Agent]:
        settings = {"home": tmp_path / "home", "network_home": network_folder, **settings}
        async with Agent.from_config(**settings) as agent:
            yield agent

    return opened

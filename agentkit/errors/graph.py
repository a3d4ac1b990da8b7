"""What is wrong with a graph, or with what it reads."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors.base import AgentKitError


class GraphError(AgentKitError, ValueError):
    """The job graph is not valid."""

    exit_code = 2


class DuplicateNode(GraphError):
    """Two nodes of the graph have the same name."""

    default_hint = "give every node of a graph a name of its own"


class UnknownInput(GraphError):
    """A node reads something that no node of the graph produces."""

    default_hint = "pass a ref that this graph's own methods returned"


class CyclicGraph(GraphError):
    """The nodes of the graph wait for one another."""

    default_hint = "remove one of the edges that the message names"


class WrongInput(GraphError):
    """A node was given an input of the wrong kind."""


class UnknownKind(WrongInput):
    """No installed package brings this kind of work."""

    default_hint = "install the package that brings it"


class UntrustedCode(GraphError):
    """The graph names code that nobody agreed to run; none of it was loaded.

    `files` says where each file lies and what its sha256 is, `digests` has the sha256 alone.
    """

    def __init__(self, files: Sequence[str], digests: Sequence[str]) -> None:
        self.files, self.digests = tuple(files), tuple(digests)
        flags = " ".join(f"--trust-code {digest}" for digest in self.digests)
        super().__init__(
            f"the graph would run code that you have not agreed to: {'; '.join(self.files)}",
            hint=f"read it, and if it may run, add {flags} (in Python: trust_code=[...])",
        )

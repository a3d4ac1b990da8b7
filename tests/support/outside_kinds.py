"""The package of `docs/how-to/kinds.md`, installed into a folder from the text of the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "kinds.md"


def blocks(language: str) -> list[str]:
    """Return the pieces of code that the page shows in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def module() -> str:
    """Return the source of the package's one module."""
    return blocks("python")[0]


def graph() -> str:
    """Return the program that builds and saves a graph."""
    return blocks("python")[1]


def install(folder: Path) -> None:
    """Lay the package out as pip does: its module, its name, and its entry points."""
    project = tomllib.loads(blocks("toml")[0])["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (folder / "agentkit_translate.py").write_text(module())
    name, version = project["name"], project["version"]
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    lines = [
        "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in points.items())])
        for group, points in groups
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")

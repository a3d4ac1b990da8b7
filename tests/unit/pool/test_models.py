from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from agentkit.errors import MissingExtra, Refused
from agentkit.pool import models
from agentkit.pool.models import CATALOGUE, model_file, path_of


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_model_of_the_catalogue_is_what_its_hash_says() -> None:
    for name, model in CATALOGUE.items():
        path = path_of(name)
        assert path.stat().st_size == model.size
        assert sha(path.read_bytes()) == model.sha256


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused, match="gpt-9") as caught:
        path_of("gpt-9")
    assert "smollm2-135m" in caught.value.hint
    assert "all-minilm-l6-v2" in caught.value.hint


def test_a_model_goes_by_all_its_names() -> None:
    assert model_file("HuggingFaceTB/SmolLM2-135M-Instruct") is CATALOGUE["smollm2-135m"]
    with pytest.raises(Refused, match="smollm2-135m-tuned"):
        model_file("smollm2-135m-tuned")


def test_a_conversion_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra) as caught:
        models.minilm.write_gguf([], tmp_path / "out")
    assert (caught.value.extra, caught.value.package) == ("local", "gguf")

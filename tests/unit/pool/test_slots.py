from __future__ import annotations

from pathlib import Path

from support.pool_fixtures import Find

from agentkit.pool.pool import Pool


def test_the_facts_are_at_hand_without_a_child(tmp_path: Path, children: Find) -> None:
    facts = Pool(scratch=tmp_path, llama_slots=2, worker_slots=3).facts()
    assert facts["simulated"] is False
    assert facts["kinds"] == ["infer", "train", "data"]
    assert facts["slots"] == {"llama": 2, "worker": 3}
    assert facts["models"] == {"smollm2-135m": 2048, "all-minilm-l6-v2": 512}
    assert facts["loaded"] == []
    assert facts["version"].startswith("xllamacpp 20")
    assert children("agentkit.pool") == []

"""What is stored changes only with its version: see "What raises a version" in CONTRIBUTING.md."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from support.golden_files import made_by

from agentkit.journal.events import EVENTS, VERSION
from agentkit.journal.records import RECORDS
from agentkit.journal.store import SCHEMA, SCHEMA_VERSION
from agentkit.journal.upgrades import ADDED_FIELDS, NewerVersion, read_event

EVENT_SETS = {3: "28c54f3cc7485f0d93cc26beb213b8f2480b8415c681527a09fe9a42375ac493"}
"""By VERSION: the digest of the event set, of every field in it and of every default."""

LAYOUTS = {5: "548f8c8d4d22a930ec0ef96db0b4aca98ca3d759ab2fc5b93dcbcfa048518d20"}
"""By SCHEMA_VERSION: the digest of the tables and of what records hold."""


class Plain(GenerateJsonSchema):
    """JSON schemas in which money, which writes itself as text, is nothing in particular."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {}


def described(model: type[BaseModel]) -> Any:
    """Return the JSON schema of a model without what is only for people."""
    return without_words(model.model_json_schema(schema_generator=Plain))


def without_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    words = {"title", "description"}
    return {
        name: without_words(part)
        for name, part in schema.items()
        if name not in words or not isinstance(part, str)
    }


def digest_of(models: Mapping[str, type[BaseModel]], *more: str) -> str:
    told = [{name: described(model) for name, model in models.items()}, *more]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def test_the_event_set_changes_only_with_its_version() -> None:
    assert max(EVENT_SETS) == VERSION
    assert digest_of(EVENTS) == EVENT_SETS[VERSION], (
        "an event, a field or a default changed: raise VERSION and SCHEMA_VERSION, say in"
        " journal/upgrades.py how earlier events are read, and write the new digest here"
    )


def test_the_layout_changes_only_with_its_schema() -> None:
    assert max(LAYOUTS) == SCHEMA_VERSION
    assert digest_of(RECORDS, SCHEMA) == LAYOUTS[SCHEMA_VERSION], (
        "a table or a record changed: raise SCHEMA_VERSION, add a step to journal/migrations.py,"
        " make the golden homes of the schema before, and write the new digest here"
    )


def test_a_changed_default_or_field_changes_the_digest() -> None:
    class Approved(EVENTS["Approved"]):  # type: ignore[misc]
        by: str = "somebody"

    class NoteAdded(EVENTS["NoteAdded"]):  # type: ignore[misc]
        language: str = ""

    plain = digest_of(EVENTS)
    for changed in (Approved, NoteAdded):
        assert digest_of({**EVENTS, changed.__name__: changed}) != plain
    assert digest_of({name: EVENTS[name] for name in list(EVENTS)[1:]}) != plain


@pytest.mark.parametrize("kind", ADDED_FIELDS)
def test_a_field_that_was_added_is_known_to_be_unknown_in_older_events(kind: str) -> None:
    since, added = ADDED_FIELDS[kind]
    assert set(added) <= set(EVENTS[kind].model_fields)
    complete = json.loads(made_by().event_of(kind).encode())
    older = json.dumps({name: x for name, x in complete.items() if name not in added})
    assert read_event(kind, since - 1, older).model_dump(include=set(added)) == dict(added)
    known = json.dumps(complete)  # some events of that version have the fields already
    assert read_event(kind, since - 1, known) == read_event(kind, since, known)
    with pytest.raises(ValueError, match="required"):
        read_event(kind, since, older)


@pytest.mark.parametrize(("kind", "version"), [("NoteAdded", VERSION + 1), ("Unheard", VERSION)])
def test_an_event_of_a_newer_version_is_refused_by_name(kind: str, version: int) -> None:
    with pytest.raises(NewerVersion, match=str(version) if version > VERSION else kind):
        read_event(kind, version, '{"topic":"t","text":"x"}')

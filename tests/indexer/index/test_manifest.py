"""The manifest document: its keys, and the refusal of every other shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from indexer.index.manifest import Manifest
from indexer.index.versions import open_version

REF = {"sha256": "0" * 64, "bytes": 3}


@pytest.fixture
def document(index_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = open_version(index_folder).manifest.model_dump(mode="json")
    return found


def test_a_document_reads_back_as_it_was(document: dict[str, Any]) -> None:
    manifest = Manifest.model_validate(document)
    assert Manifest.model_validate_json(json.dumps(document)) == manifest
    assert manifest.model_dump(mode="json") == document


def test_every_object_has_a_name_for_people(document: dict[str, Any]) -> None:
    document["method"]["fitted"] = REF
    document["vectors"]["shards"] *= 2
    manifest = Manifest.model_validate(document)
    assert list(manifest.objects()) == [
        "checkpoint 1 ('epoch-01.safetensors')",
        "checkpoint 2 ('epoch-03.safetensors')",
        "checkpoint 3 ('epoch-06.safetensors')",
        "vectors, shard 1",
        "vectors, shard 2",
        "examples",
        "probe outputs",
        "fitted tensors",
    ]


def test_coded_vectors_name_their_code(document: dict[str, Any]) -> None:
    document["vectors"] |= {"dtype": "coded", "code": {"object": REF, "row_bytes": 64}}
    found = Manifest.model_validate(document).objects()
    assert list(found)[3:5] == ["vectors, shard 1", "code of the vectors"]
    assert found["code of the vectors"].model_dump() == REF


def prefix_of(document: dict[str, Any]) -> dict[str, Any]:
    """A search by a prefix of as many rows."""
    vectors = {**document["vectors"], "dtype": "coded", "code": {"object": REF, "row_bytes": 64}}
    return {"vectors": vectors, "rotation": REF, "sides": REF}


def test_a_search_names_its_files(document: dict[str, Any]) -> None:
    document["search"] = {"kind": "prefix", "prefix": prefix_of(document), "queries": REF}
    assert list(Manifest.model_validate(document).search.objects()) == [
        "queries of the search",
        "search vectors, shard 1",
        "code of the search vectors",
        "rotation of the search",
        "sides of the search",
    ]
    assert (
        Manifest.model_validate(document).search.objects().items()
        <= Manifest.model_validate(document).objects().items()
    )


def test_a_search_has_a_prefix_if_that_is_its_kind(document: dict[str, Any]) -> None:
    for search in ({"kind": "prefix"}, {"kind": "flat", "prefix": prefix_of(document)}):
        with pytest.raises(ValidationError, match="a search of kind 'prefix' has a prefix, and no other has one"):
            Manifest.model_validate({**document, "search": search})


WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    (("format",), 2),
    (("comment",), "an unknown key"),
    (("checkpoints",), []),
    (("checkpoints", 0, "learning_rate"), -0.1),
    (("checkpoints", 0, "eta"), -0.1),
    (("checkpoints", 0, "object"), {**REF, "bytes": -1}),
    (("vectors", "dtype"), ">f4"),
    (("vectors", "dtype"), "coded"),
    (("vectors", "code"), {"object": REF, "row_bytes": 64}),
    (("vectors", "code"), {"object": REF, "row_bytes": 3}),
    (("vectors", "rows"), 0),
    (("vectors", "shards", 0, "rows"), 0),
    (("vectors", "parts", 0, "start"), -1),
    (("search", "kind"), "tree"),
    (("plan", "dtype"), "float16"),
    (("plan", "batch_size"), 0),
    (("blocks", 0, "path"), "guess"),
    (("probe",), None),
    (("examples", 0, "object", "url"), "https://example.com"),
]


@pytest.mark.parametrize(("place", "value"), WRONG, ids=[".".join(map(str, place)) for place, _ in WRONG])
def test_another_shape_is_refused_at_its_place(
    document: dict[str, Any], place: tuple[str | int, ...], value: object
) -> None:
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with pytest.raises(ValidationError) as exc:
        Manifest.model_validate(document)
    found = exc.value.errors()[0]["loc"]
    assert found[: len(place)] == place[: len(found)]

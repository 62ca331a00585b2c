"""The seam between methods and everything else, held by a toy method that is not symmetric."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from indexer.methods.method import Asked, Batch, Fitted, Method, Part, TrainRows


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """score(z, z') = <2 z, -z'>: train and query vectors of one example differ, and self-influence is unknown."""

    width: int

    @property
    def explains(self) -> frozenset[str]:
        return frozenset({"score"})

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part("all", 0, self.width),)

    @property
    def exact_vectors(self) -> bool:
        return True

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {}

    @property
    def random_check(self) -> Mapping[str, list[float]]:
        return {}

    def asked(self, queries: Batch) -> None:
        return None

    def train_rows(self, batch: Batch, asked: Asked | None = None) -> TrainRows:
        return TrainRows(2 * batch[0], self_influence=None)

    def query_vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return -batch[0], batch[0].sum(1, keepdim=True)

    def exact(self, queries: Batch, train: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, _ in train:
            yield -2 * inputs @ queries[0].T, torch.zeros(len(inputs), 1)


def test_a_method_need_not_be_symmetric() -> None:
    method: Method = Asymmetric(3)
    assert isinstance(method, Method)
    batch = torch.randn(4, 3), torch.zeros(4)
    train, (queries, _) = method.train_rows(batch).vectors, method.query_vectors(batch)
    ((exact, _),) = method.exact(batch, [batch])
    assert torch.allclose(train @ queries.T, exact)
    assert not torch.allclose(train, queries)


def test_an_object_without_query_vectors_is_no_method() -> None:
    class Half:
        train_rows = Asymmetric.train_rows

    assert not isinstance(Half(), Method)


def test_self_influence_has_a_row_for_every_vector() -> None:
    rows = TrainRows(torch.zeros(4, 6), torch.zeros(4, 3))
    assert rows.self_influence is not None
    with pytest.raises(jaxtyping.TypeCheckError, match="self_influence"):
        TrainRows(torch.zeros(4, 6), torch.zeros(5, 3))


def test_exact_scores_have_a_row_for_every_vector() -> None:
    assert TrainRows(torch.zeros(4, 6), None).scores is None
    assert TrainRows(torch.zeros(4, 6), None, torch.zeros(4, 2)).scores is not None
    with pytest.raises(jaxtyping.TypeCheckError, match="scores"):
        TrainRows(torch.zeros(4, 6), None, torch.zeros(2, 4))


def test_what_was_fitted_is_kept_as_float32_unless_it_says_otherwise() -> None:
    assert Fitted({}).code is None


def test_a_part_is_a_slice() -> None:
    part = Part("checkpoint 2", 2, 5)
    assert torch.arange(8)[part.start : part.stop].tolist() == [2, 3, 4]

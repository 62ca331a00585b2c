"""The index card: how well the scores of an index agree with exact ones, measured when it was built.

A few queries are scored against all rows twice, from the stored vectors and by exact products, and the differences are
kept in the manifest. ``indexer.building.agreement`` computes and defines the figures; here is their shape.
"""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecallEntry(_Frozen):
    """Share of the exact first 10 and 100 rows of one direction that the index finds.

    An interval is null where one query alone was asked.
    """

    recall_at_10: Share
    recall_at_10_interval: tuple[Share, Share] | None
    recall_at_100: Share
    recall_at_100_interval: tuple[Share, Share] | None


class ErrorEntry(_Frozen):
    """This share of the scores errs by at most ``of_rms``, in units of the RMS of its query's exact scores."""

    share: Share
    of_rms: FiniteFloat = Field(ge=0)


class ReferenceEntry(_Frozen):
    """A fixed sample of the index's own scores: ``shares[i]`` of them lie below ``scores[i]``."""

    shares: tuple[Share, ...] = Field(min_length=2)
    scores: tuple[FiniteFloat, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _in_order(self) -> "ReferenceEntry":
        if len(self.shares) != len(self.scores):
            raise ValueError(f"expected as many shares as scores, found {len(self.shares)} and {len(self.scores)}")
        if any(left >= right for left, right in pairwise(self.shares)):
            raise ValueError("expected strictly increasing shares")
        if any(left > right for left, right in pairwise(self.scores)):
            raise ValueError("expected scores that do not fall")
        return self


class CardEntry(_Frozen):
    """What was measured of an index.

    source: the split that the queries are from; training rows leave themselves out. confidence: of every interval.
    pearson, spearman: null where there is no correlation, because scores are all equal. error: by rising share, and
    empty where all exact scores are zero. bytes_per_example: all that a query reads, over rows; bases apart.
    """

    queries: int = Field(gt=0)
    source: Literal["test", "train"]
    rows: int = Field(gt=0)
    confidence: float = Field(gt=0, lt=1)
    proponents: RecallEntry
    opponents: RecallEntry
    pearson: Correlation | None
    pearson_interval: tuple[Correlation, Correlation] | None
    spearman: Correlation | None
    spearman_interval: tuple[Correlation, Correlation] | None
    error: tuple[ErrorEntry, ...]
    reference: ReferenceEntry
    bytes_per_example: FiniteFloat = Field(gt=0)
    basis_bytes: int = Field(ge=0)

"""What a search answers, and what every search can be asked."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

EXACT_BELOW = 20_000  # rows; so few are scanned whatever the index is: 10 ms at 512 bytes a row (one thread)

View = Literal["dot", "normalised"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Positions of one query's candidates, likely best first: the top k of each direction are among them.

    exhaustive: no row that may be answered can be missing: all were compared, or bounds prove that the others score
    less. False where candidates were cut off, as among more ties with the k-th than are ever fetched.
    """

    proponents: list[int]
    opponents: list[int]
    exhaustive: bool


@runtime_checkable
class Search(Protocol):
    """A way to find candidates."""

    def search(
        self,
        queries: Float[np.ndarray, "q m"],
        k: int,
        view: View = "dot",
        rows: Bool[np.ndarray, " n"] | None = None,
    ) -> list[Candidates]:
        """Return candidates for the k proponents and k opponents of every query, ties at the k-th place included.

        view: by the product, or by the product over the row's norm, where a row of norm 0 scores 0. rows: those that
        may be answered, None for all; where they are fewer than k, all of them are candidates.

        Raises:
            QuestionError: the view is normalised, and there are no norms.
        """

"""What a projection is, and the choice of one by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Layout
from indexer.projection.countsketch import CountSketch
from indexer.projection.gaussian import Gaussian
from indexer.projection.identity import Identity
from indexer.projection.pca import Pca
from indexer.projection.rank1 import Rank1


@runtime_checkable
class Projection(Protocol):
    """A linear map of the gradient at one checkpoint, another one at each checkpoint.

    ``matrices`` draws what the map at a checkpoint needs; ``piece`` applies it to one parameter block, as soon as the
    block's gradient is there, and ``join`` makes the vector of the pieces of all blocks. They are apart so that no
    gradient outlives its piece, and so that the matrices of all checkpoints can be stacked and the map run at all of
    them at once.
    """

    @property
    def width(self) -> int:
        """d: numbers a checkpoint."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        """Return the named matrices of one checkpoint; the same names and shapes at every checkpoint."""

    def piece(self, name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b r"]:
        """Return what the map makes of one block's gradient."""

    def join(self, pieces: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """Return the projected gradients, from the pieces of all blocks and the same matrices."""


PROJECTIONS: Mapping[str, Callable[..., Projection]] = {
    "identity": Identity,
    "gaussian": Gaussian,
    "rank1": Rank1,
    "countsketch": CountSketch,
    "pca": Pca,
}
FITTED = frozenset({"pca"})  # on a sample of training examples; the others need no data

_GIVEN = ("layout", "bases")


def project(
    projection: Projection,
    gradients: Mapping[str, BlockGradient],
    matrices: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "b d"]:
    """Return the projection of gradients that are there as a whole, each block multiplied by its weight."""
    pieces = {name: projection.piece(name, gradient, matrices) for name, gradient in gradients.items()}
    return projection.join(
        {name: piece if weights is None else weights[name] * piece for name, piece in pieces.items()}, matrices
    )


def make_projection(
    layout: Layout, parameters: Mapping[str, Any], bases: Sequence[Mapping[str, Tensor]] = ()
) -> Projection:
    """Return the projection that the parameters {"name", ...} choose, for gradients of this layout.

    bases: what was fitted at each checkpoint, for a projection that is fitted (`FITTED`).

    Raises:
        BuildError: no such projection, or parameters that it does not take.
    """
    name, numbers = named(parameters)
    given = {"bases": bases} if name in FITTED else {}
    try:
        return PROJECTIONS[name](layout, **given, **numbers)
    except TypeError as exc:
        raise BuildError(_not_taken(name, numbers)) from exc


def named(parameters: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """Return the name of the projection that the parameters {"name", ...} choose, and its numbers.

    Raises:
        BuildError: no such projection, or parameters that it does not take.
    """
    numbers = dict(parameters)
    name = numbers.pop("name", None)
    if not isinstance(name, str) or name not in PROJECTIONS:
        raise BuildError(f"unknown projection {name!r}; expected one of {', '.join(PROJECTIONS)}")
    for key, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise BuildError(f"projection {name!r}: {key} = {value!r}; expected a whole number")
    taken = {f.name for f in fields(PROJECTIONS[name])} - set(_GIVEN)  # type: ignore[arg-type]  # all are dataclasses
    if not taken.issuperset(numbers):
        raise BuildError(_not_taken(name, numbers))
    return name, numbers


def _not_taken(name: str, numbers: Mapping[str, int]) -> str:
    return f"projection {name!r} does not take the parameters {sorted(numbers)}"


def describe(projection: Projection) -> dict[str, Any]:
    """Return the parameters that make this projection again, every default written out."""
    [name] = [name for name, kind in PROJECTIONS.items() if kind is type(projection)]
    values = {f.name: getattr(projection, f.name) for f in fields(projection) if f.name not in _GIVEN}  # type: ignore[arg-type]
    return {"name": name, **values}

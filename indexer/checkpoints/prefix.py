"""The prefix between names in a file and names of a module: one for all of them, found by what it would explain."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from indexer.errors import CheckpointError

Shape = tuple[int, ...]
Wanted = Sequence[Mapping[str, Shape]]  # names of the module and their shapes; of tied ones together, any will do


@dataclass(frozen=True, slots=True)
class Prefix:
    """What to take off a file's name, and what to put before it then."""

    off: str = ""
    before: str = ""

    def own(self, name: str) -> str | None:
        """Return a file's name as the module has it; None where it does not begin with what is taken off."""
        return self.before + name.removeprefix(self.off) if name.startswith(self.off) else None

    def in_file(self, name: str) -> str | None:
        """Return a module's name as the file has it; None where it does not begin with what is put before."""
        return self.off + name.removeprefix(self.before) if name.startswith(self.before) else None


def find_prefix(state: Mapping[str, Shape], wanted: Wanted, where: str) -> Prefix:
    """Return the prefix under which the file has all that is wanted; an empty one where there is no such one.

    Shapes decide only between several: a single one with other shapes is this model, changed, and worth saying so.

    Raises:
        CheckpointError: there are several of the same shapes; ``where`` names the file.
    """

    def has_all(prefix: Prefix) -> bool:
        return _held(state, wanted, prefix) == len(wanted)

    def fits(prefix: Prefix) -> bool:
        return all(any(state.get(prefix.in_file(name) or "") == names[name] for name in names) for names in wanted)

    if not wanted or has_all(Prefix()):
        return Prefix()
    whole = [candidate for candidate in _candidates(state, wanted) if has_all(candidate)]
    if len(whole) > 1:
        whole = [candidate for candidate in whole if fits(candidate)]
    if len(whole) > 1:
        told = " and ".join(repr(prefix.off) for prefix in whole[:2])
        raise CheckpointError(
            f"{where} has every weight of the task's model twice, under {told}; save the one that is meant alone"
        )
    return whole[0] if whole else Prefix()


def likeness(state: Collection[str], wanted: Wanted, chosen: Prefix) -> str | None:
    """Return another prefix under which the file has at least half of what is wanted, beside the one that was chosen.

    It may be what was meant: the trained weights beside their moving average, one of two networks alike.
    """
    beside = [
        candidate.off
        for candidate in _candidates(state, wanted)
        if not candidate.off.startswith(chosen.off) and not candidate.before
        if 2 * _held(state, wanted, candidate) >= len(wanted)
    ]
    return beside[0] if chosen.off and beside else None


def _held(state: Collection[str], wanted: Wanted, prefix: Prefix) -> int:
    return sum(any(prefix.in_file(name) in state for name in names) for names in wanted)


def _candidates(state: Collection[str], wanted: Wanted) -> list[Prefix]:
    """Return the prefixes that would put the first wanted names, or the last, into the file."""
    found: dict[Prefix, None] = {}
    for name in dict.fromkeys([*wanted[0], *wanted[-1]]):
        found |= {Prefix(off=other.removesuffix(name)): None for other in state if other.endswith(f".{name}")}
        parts = name.split(".")
        shorter = (".".join(parts[:i]) + "." for i in range(1, len(parts)) if ".".join(parts[i:]) in state)
        found |= {Prefix(before=before): None for before in shorter}
    return list(found)

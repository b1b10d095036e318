"""What a defect is: edits of the source, and the proofs that have to find it."""

from typing import Final

from attrs import frozen

__all__ = ["SEGMENTS", "SIMULATION", "TAIL", "Edit", "Mutant", "Proof", "mutant"]


@frozen
class Proof:
    """A proof as a command, without the interpreter; `seed` is its option for what all of it is drawn from."""

    name: str
    command: tuple[str, ...]
    seed: str = "--seed"

    def seeded(self, seed: int) -> tuple[str, ...]:
        """The command with this seed."""
        return (*self.command, self.seed, str(seed))


SIMULATION: Final = Proof("simulation", ("tools/proof_simulation.py", "--seeds", "10000", "--no-shrink"), "--first")
"""As many seeds as the proof itself has in CI. It ends with the first that fails: only a survivor costs that much."""
TAIL: Final = Proof("bytes", ("tools/proof_bytes.py", "--tail-bytes", "4096", "--only", "tail"))
SEGMENTS: Final = Proof("bytes", ("tools/proof_bytes.py", "--only", "segments"))


@frozen
class Edit:
    """`old`, which stands in the file once, becomes `new`."""

    file: str
    old: str
    new: str


@frozen
class Mutant:
    """One defect. `caught_by` are tried in order, until one finds a violation."""

    name: str
    edits: tuple[Edit, ...]
    caught_by: tuple[Proof, ...] = (SIMULATION,)


def mutant(name: str, file: str, old: str, new: str, *, caught_by: Proof = SIMULATION) -> Mutant:
    return Mutant(name, (Edit(file, old, new),), (caught_by,))

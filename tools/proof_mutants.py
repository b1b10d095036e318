"""Proof that the proofs can fail: the engine with one defect at a time, and each must be caught by name.

    python tools/proof_mutants.py
    python tools/proof_mutants.py --only "no fsync" --seed 17

A mutant is a copy of the package with one defect (mutants/catalogue.py); the proof that has to find it runs on that
copy until it names a violation; the command that repeats it must then pass on the package as it is. A mutant that
survives is a violation of this proof. What that proof draws is decided by the seed and the mutant's name, whichever
other mutants are tried.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from mutants.catalogue import MUTANTS
from mutants.defect import Mutant
from mutants.workshop import Catch, MutationError, hunt, is_the_mutants, make
from proof_processes import as_command
from proof_report import SEED_BITS, ProofReport, add_arguments, seed_of

AT_ONCE: Final = 2
TIMEOUT_S: Final = 900.0
"""A hunt without a catch takes minutes; it is no mutant's fault if the machine is slow."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--only", metavar="NAME", help="one mutant")
    parser.add_argument("--list", action="store_true", help="name the mutants and the proofs that must catch them")
    options = parser.parse_args(arguments)
    if options.list:
        for mutant in MUTANTS:
            print(f"{mutant.name:<50} {', '.join(proof.name for proof in mutant.caught_by)}")
        return 0
    chosen = [mutant for mutant in MUTANTS if options.only in {None, mutant.name}]
    if not chosen:
        parser.error(f"there is no mutant called {options.only!r}; --list names them")
    seed = seed_of(options)
    print(f"seed {seed}", flush=True)
    report = ProofReport("mutants")
    with ThreadPoolExecutor(AT_ONCE) as workers:
        for mutant, found in zip(chosen, workers.map(partial(_judge, seed), chosen), strict=True):
            report.tried["mutants"] += 1
            if isinstance(found, Catch):
                report.tried[f"caught by {found.proof}"] += 1
                report.say(f"{mutant.name}: caught by {found.proof}: {found.violation}")
            else:
                repeat = f'python tools/proof_mutants.py --only "{mutant.name}" --seed {seed}'
                report.violation(f"{mutant.name}: {found}", repeat=repeat)
    return report.end(options)


def _judge(seed: int, mutant: Mutant) -> Catch | str:
    """Who caught it, or what went wrong."""
    own = Random(f"{mutant.name} {seed}").getrandbits(SEED_BITS)
    with tempfile.TemporaryDirectory(prefix="statehouse-mutant-") as directory:
        try:
            make(mutant, Path(directory))
            for proof in mutant.caught_by:
                catch = hunt(proof, Path(directory), own, TIMEOUT_S)
                if catch is not None:
                    if is_the_mutants(catch, TIMEOUT_S):
                        return catch
                    return f"{proof.name} fails without it, too: {catch.violation}"
        except MutationError as error:
            return str(error)
    return f"survived {', '.join(proof.name for proof in mutant.caught_by)}"


if __name__ == "__main__":
    as_command(main)

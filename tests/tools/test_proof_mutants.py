"""The mutants: each fits its source, and one that no proof finds is told of."""

import sys

import proof_bytes
import proof_mutants
import proof_simulation
import pytest
from attrs import evolve
from mutants.catalogue import MUTANTS
from mutants.defect import SEGMENTS, SIMULATION, TAIL, Edit, Mutant, Proof
from mutants.workshop import PACKAGE, MutationError, hunt, make, mutated

FINDS = Proof("finds", ("-c", "import statehouse.errors as e; print('VIOLATION of', e.__file__)"))
SHOWS = Proof("shows", ("-c", "import sys; print('VIOLATION', *sys.argv[1:])"), "--first")
FINDS_NOTHING = Proof("finds nothing", ("-c", "print('passed')"))
BREAKS = Proof("breaks", ("-c", "raise SystemExit('no such option')"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_edit_fits_its_source_and_changes_it(mutant):
    for edit in mutant.edits:
        source = (PACKAGE / edit.file).read_text(encoding="utf-8")
        assert mutated(edit, source) != source
    assert mutant.caught_by


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_an_edit_that_fits_twice_or_not_at_all_or_is_no_python_is_refused():
    for old, new in (("import", "x"), ("no such text", "x"), ('"""Every error', "(")):
        with pytest.raises(MutationError):
            mutated(Edit("errors.py", old, new), (PACKAGE / "errors.py").read_text(encoding="utf-8"))


def test_failpoints_do_not_stand_in_the_way():
    assert mutated(Edit("x.py", "a = 1\nb = 2\n", "c = 3\n"), "a = 1\n# failpoint: x.y\nb = 2\n") == "c = 3\n"


def test_a_proof_runs_on_the_mutated_copy(tmp_path):
    make(MUTANTS[0], tmp_path)
    edit = MUTANTS[0].edits[0]
    assert edit.new in (tmp_path / "statehouse" / edit.file).read_text(encoding="utf-8")
    catch = hunt(FINDS, tmp_path, 1, 30.0)
    assert catch is not None
    assert catch.violation == f"of {tmp_path}/statehouse/errors.py"


def test_a_mutant_that_nobody_finds_is_no_catch(tmp_path):
    make(MUTANTS[0], tmp_path)
    assert hunt(FINDS_NOTHING, tmp_path, 1, 30.0) is None


def test_a_proof_that_breaks_has_not_caught_anything(tmp_path):
    with pytest.raises(MutationError, match="no such option"):
        hunt(BREAKS, tmp_path, 1, 30.0)


def test_a_survivor_fails_the_proof(monkeypatch, capsys):
    caught = evolve(MUTANTS[0], name="caught", caught_by=(FINDS_NOTHING, FINDS))
    monkeypatch.setattr(proof_mutants, "MUTANTS", (caught,))
    assert proof_mutants.main([]) == 0
    assert "caught: caught by finds" in capsys.readouterr().out
    survivor = evolve(caught, name="survivor", caught_by=(FINDS_NOTHING,))
    monkeypatch.setattr(proof_mutants, "MUTANTS", (caught, survivor))
    assert proof_mutants.main(["--seed", "17"]) == 1
    out = capsys.readouterr().out
    assert "VIOLATION survivor: survived finds nothing" in out
    assert 'repeat: python tools/proof_mutants.py --only "survivor" --seed 17' in out


def test_the_seed_and_the_mutant_decide_what_its_proof_draws(monkeypatch, capsys):
    monkeypatch.setattr(
        proof_mutants, "MUTANTS", tuple(evolve(MUTANTS[0], name=name, caught_by=(SHOWS,)) for name in "ab")
    )

    def told(*arguments: str) -> list[str]:
        assert proof_mutants.main([*arguments]) == 0
        return [line.partition(":")[2] for line in capsys.readouterr().out.splitlines() if "caught by shows:" in line]

    first, second = told("--seed", "17")
    assert "--first" in first
    assert first != second
    assert told("--seed", "17") == [first, second]
    assert told("--seed", "17", "--only", "b") == [second]
    assert told("--seed", "18")[0] != first
    assert told()[0] != first


def test_a_seed_that_was_not_given_is_told(monkeypatch, capsys):
    survivor = evolve(MUTANTS[0], name="survivor", caught_by=(FINDS_NOTHING,))
    monkeypatch.setattr(proof_mutants, "MUTANTS", (survivor,))
    assert proof_mutants.main([]) == 1
    out = capsys.readouterr().out
    seed = out.splitlines()[0].removeprefix("seed ")
    assert f'--only "survivor" --seed {seed}\n' in out


@pytest.mark.parametrize("proof", [SIMULATION, TAIL, SEGMENTS], ids=["simulation", "tail", "segments"])
def test_the_proofs_take_the_seed(proof, capsys):
    command = proof_simulation if proof is SIMULATION else proof_bytes
    with pytest.raises(SystemExit) as end:
        command.main([*proof.seeded(17)[1:], "--help"])
    assert end.value.code == 0
    assert proof.seed in capsys.readouterr().out


def test_what_fails_without_the_mutant_is_no_catch_of_it(monkeypatch, capsys):
    always = Proof("always", ("-c", "print('VIOLATION of old'); print('  repeat: python -m no_such_module')"))
    only_then = Proof("only then", ("-c", "print('VIOLATION of new'); print('  repeat: python -c pass')"))
    monkeypatch.setattr(
        proof_mutants,
        "MUTANTS",
        (evolve(MUTANTS[0], name="a", caught_by=(always,)), evolve(MUTANTS[0], name="b", caught_by=(only_then,))),
    )
    assert proof_mutants.main([]) == 1
    out = capsys.readouterr().out
    assert "VIOLATION a: always fails without it, too: of old" in out
    assert "b: caught by only then: of new" in out


def test_an_unknown_mutant_is_a_usage_error():
    with pytest.raises(SystemExit) as end:
        proof_mutants.main(["--only", "no such mutant"])
    assert end.value.code == 2


def test_the_interpreter_is_the_same(tmp_path):
    make(Mutant("whole", (), (FINDS,)), tmp_path)
    shows = Proof("shows", ("-c", "import sys; print('VIOLATION', sys.executable)"))
    catch = hunt(shows, tmp_path, 1, 30.0)
    assert catch is not None
    assert catch.violation == sys.executable

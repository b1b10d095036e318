"""The soak: the judge of flatness on made-up series, the plots, a run of seconds, and a daemon that leaks."""

import csv
import random
import sys
from functools import partial

import proof_soak
import pytest
from attrs import evolve
from daemon_process import DaemonProcess
from soak import lives, plots, rules
from soak.flatness import LEAST_SAMPLES, Rule, growth
from soak.sample import MIB, LogMeter, Sample, write_csv
from storage.fix_store import ALICE, Writer, leveldb_bench, value  # noqa: F401 - a fixture

RULE = Rule("memory", "MiB", noise=8.0, per_hour=20.0)
HOUR = [float(second) for second in range(3_600)]
MINUTE = HOUR[:60]


def noisy(times_s, *, leak_per_hour=0.0, seed=1):
    """Memory of a healthy daemon: 40 MiB, buffers that fill and are emptied, and what is measured by chance."""
    rng = random.Random(seed)
    return [40 + 6 * (at % 23) / 23 + rng.uniform(-1, 1) + leak_per_hour * at / 3_600 for at in times_s]


def is_flat(times_s, values):
    return not RULE.broken_by(growth(times_s, values), "made up")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("times_s", [HOUR, MINUTE])
def test_noise_is_flat(times_s, seed):
    assert is_flat(times_s, noisy(times_s, seed=seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_is_found(seed):
    assert is_flat(HOUR, noisy(HOUR, leak_per_hour=18, seed=seed))
    assert not is_flat(HOUR, noisy(HOUR, leak_per_hour=40, seed=seed))
    assert not is_flat(MINUTE, noisy(MINUTE, leak_per_hour=40 * 60, seed=seed))


@pytest.mark.parametrize("at", [1_000, 1_800, 2_600])
def test_a_step_is_found_and_a_spike_is_not_one(at):
    values = noisy(HOUR)
    assert not is_flat(HOUR, [each + 40 * (second >= at) for second, each in enumerate(values)])
    assert is_flat(HOUR, [each + 40 * (at <= second < at + 30) for second, each in enumerate(values)])


def test_what_shrinks_is_flat_and_a_few_samples_are_no_series():
    assert is_flat(HOUR, noisy(HOUR, leak_per_hour=-500))
    with pytest.raises(ValueError, match="no series"):
        growth(HOUR[: LEAST_SAMPLES - 1], [1.0] * (LEAST_SAMPLES - 1))


def test_the_words_of_a_leak():
    (said,) = RULE.broken_by(growth(HOUR, [at / 36 for at in HOUR]), "life 3")
    assert said.startswith("life 3: memory is not flat: it gained 100.0 MiB by its slope (100 an hour) and 66.7 ")
    assert said.endswith("28.0 are allowed")


# The rules


def life(number=1, *, seconds=120, first_s=0.0, **changes):
    """The samples of a life without blemish; a change is a function of the second."""
    plain = Sample(
        at_s=0.0, life=number, life_s=0.0, loaded=True, commits=0, rss_anon=40 * MIB, rss_file=16 * MIB, threads=6,
        sockets=30, files=10, segments=2, connections=22, calls=4, streams=4, tasks=150, log_used=10 * MIB,
        log_disk=64 * MIB, state_disk=2 * MIB, snapshots_disk=MIB, other_disk=4096,
    )  # fmt: skip
    return [
        evolve(plain, at_s=first_s + at, life_s=at, **{name: change(at) for name, change in changes.items()})
        for at in map(float, range(seconds))
    ]


def test_a_healthy_life_is_flat_whatever_its_warm_up_does():
    judged = rules.of_a_life(life(rss_anon=lambda at: int((40 + min(at, 30)) * MIB)))
    assert judged.wrong == []
    assert "RssAnon +0.0/+0.0 MiB" in judged.measured[0]


@pytest.mark.parametrize("name", rules.RULES)
def test_each_series_that_leaks_is_named(name):
    unit = MIB if name == "rss_anon" else 1
    judged = rules.of_a_life(life(7, **{name: lambda at: int((10 + at) * unit)}))
    (said,) = judged.wrong
    assert said.startswith(f"life 7: {rules.RULES[name].name} is not flat")


def test_a_life_without_enough_samples_under_load_is_not_judged():
    assert rules.of_a_life([]) is None
    assert rules.of_a_life(life(seconds=LEAST_SAMPLES)) is None
    assert rules.of_a_life(life(loaded=lambda at: at > 115)) is None


def test_lives_that_creep_are_found():
    flat = [life(number, first_s=number * 200.0) for number in range(6)]
    assert rules.over_lives(flat).wrong == []
    creeping = [life(n, first_s=n * 200.0, rss_anon=lambda _, n=n: (40 + 10 * n) * MIB) for n in range(6)]
    (said,) = rules.over_lives(creeping).wrong
    assert said.startswith("over 6 lives: RssAnon is not flat")
    assert rules.over_lives(flat[:1]) is None


def test_an_idle_daemon_must_have_no_more_than_it_had():
    (sample,) = life(seconds=1)
    assert rules.not_back(sample, evolve(sample, tasks=100, threads=9, rss_anon=99 * MIB)) == []
    for name in rules.BACK:
        (said,) = rules.not_back(sample, evolve(sample, **{name: getattr(sample, name) + 1}))
        assert name in said


def test_a_data_directory_that_grows_beyond_the_log():
    (sample,) = life(seconds=1)
    assert rules.beyond_the_log(sample) == []
    for name in ("log_disk", "state_disk", "snapshots_disk", "other_disk"):
        assert len(rules.beyond_the_log(evolve(sample, **{name: 300 * MIB}))) == 1


# The plots and the samples


def test_an_hour_is_drawn_in_small_files(tmp_path):
    rng = random.Random(1)
    noise = {"rss_anon": lambda _: rng.randrange(MIB), "tasks": lambda _: rng.randrange(99)}
    samples = [sample for number in range(6) for sample in life(number, seconds=600, first_s=number * 610.0, **noise)]
    drawn = plots.draw(tmp_path, samples)
    assert [path.stem for path in drawn] == list(plots.PLOTS)
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 100_000
    write_csv(tmp_path / "samples.csv", samples)
    with (tmp_path / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), rows[700]["life"], rows[700]["rss_file"]) == (3_600, "1", str(16 * MIB))


def test_the_meter_counts_what_the_log_has(leveldb_bench, tmp_path):  # noqa: F811 - the fixture
    store = leveldb_bench.store()
    writer, meter = Writer(store), LogMeter(tmp_path / "log")
    for number in range(60):  # 64 KiB a segment
        writer.commit((ALICE, b"k", value(5_000)))
        if number % 20 == 7:
            assert meter.look() == (store.log_bytes, number + 1)
    meter.start_again()
    assert meter.look() == (store.log_bytes, 60)
    assert LogMeter(tmp_path / "log").look() == (store.log_bytes, 60)


# Runs


LEAKY = (
    "import os, sys\n"
    "from statehouse.storage.store import Store\n"
    "commit = Store.commit\n"
    "def leak(self, group):\n"
    "    os.dup(2)\n"
    "    commit(self, group)\n"
    "Store.commit = leak\n"
    "from statehouse.cli.statehoused import main\n"
    "main(sys.argv[1:])\n"
)


@pytest.fixture
def soaked(tmp_path, monkeypatch, capsys):
    """Run the command for some seconds; its exit code and what it printed."""
    monkeypatch.setattr(lives, "CYCLE_S", 2.0)
    monkeypatch.setattr(lives, "FIRST_CYCLE_S", 1.0)

    def soaked():
        exit_code = proof_soak.main(["--minutes", "0.2", "--seed", "1", "--plots", str(tmp_path / "plots")])
        return exit_code, capsys.readouterr().out

    return soaked


def test_a_run_of_seconds(soaked, tmp_path):
    exit_code, out = soaked()
    assert exit_code == 0, out
    assert "lives that kill -9 ended, under load" in out
    assert "no life was long enough" in out
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(
        [*(f"{name}.png" for name in plots.PLOTS), "samples.csv"]
    )


def test_a_daemon_that_loses_descriptors_fails_the_soak(soaked, monkeypatch):
    monkeypatch.setattr(proof_soak, "DaemonProcess", partial(DaemonProcess, command=(sys.executable, "-c", LEAKY)))
    monkeypatch.setattr(lives, "BACK_WITHIN_S", 0.5)
    exit_code, out = soaked()
    assert exit_code == 1, out
    assert "VIOLATION life 2: idle again, it has" in out

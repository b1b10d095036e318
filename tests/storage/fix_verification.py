"""Verifying a store of the tests, and what must hold of every verification."""

from statehouse.findings import FindingKind, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.storage.verification import StoreMoment, Verification


def moment_of(bench, store=None, *, fsync=True):
    """The store as it is served, or, closed, at rest."""
    if store is not None:
        view, head = store.moment()
        served = head
    else:
        found = bench.home.find()
        view, served = None if found is None else found.snapshot(), None
    place = bench.place
    return StoreMoment(
        disk=place.disk,
        log_directory=place.log_directory,
        snapshot_directory=place.snapshot_directory,
        view=view,
        served_head=served,
        fsync=fsync,
    )


def verified(bench, store=None, heads=(), **settings):
    """What a verification finds, and its verdict."""
    events = [event for event in Verification(moment_of(bench, store, **settings), heads).events() if event is not None]
    verdict = events[-1]
    assert isinstance(verdict, VerifyVerdict)
    findings = [event for event in events if isinstance(event, VerifyFinding)]
    assert len(findings) + sum(isinstance(event, VerifyProgress) for event in events) == len(events) - 1
    assert verdict.sound is not any(not finding.is_note for finding in findings)
    for finding in findings:
        assert finding.is_note is FindingKind(finding.kind).is_note
        assert finding.is_note or finding.remedy
    return findings, verdict


def kinds(findings):
    return [str(finding.kind) for finding in findings]


def assert_is(finding, kind, agent, place):
    """A finding in the state, of an agent (or of none) at a place."""
    assert finding.kind == kind, finding
    assert (finding.namespace or "", finding.agent_id or "", finding.file) == (*agent, "state")
    assert {name: getattr(finding, name) for name in place} == place


def assert_found_when_changed(planted, row, at, bit):
    """One bit of the row's value is flipped."""
    bench, store = planted
    key, agent, place = row
    content = bytearray(store._view.get(key))
    content[at] ^= bit
    store._view.apply([(key, bytes(content))])
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-wrong", agent, place)


def assert_found_when_missing(planted, row):
    """The row is deleted."""
    bench, store = planted
    key, agent, place = row
    store._view.apply([(key, None)])
    (finding,), _ = verified(bench, store)
    assert_is(finding, "row-missing", agent, place)

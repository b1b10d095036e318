"""The adversary of proof_bytes.py: every byte of a store that is kept, changed, and what opening makes of it.

`byte_disk` is the disk of bytes that cases are tried on, `writing` makes the stores, `format_reader` reads their log by
docs/formats.md and by nothing of the engine, `expectation` says what that page promises for a change. The changes and
their trials are `tail_changes` and `tail_trials`, `segment_cases`, `snapshot_cases`, and for LevelDB `view_files` and
`view_cases`. `found` is what a share of the work brings back.
"""

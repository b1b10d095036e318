"""The parts of `proof_replay.py`: a drawn history, the store that runs it, what reads gave, and a fold of the replay.

`drawing` and `json_values` say what happens; `stores` and `same_turns` are what it happens on; `running` carries it
out and writes down what every read gave (`recorded`); `fold` makes states of events, from the wire contract alone;
`judging` holds the two against each other at every commit_ts.
"""

"""The parts of proof_kill.py, each of which knows nothing of the others' work.

workload.py loads a daemon and writes down what it sent and was told (submissions.py). faults.py ends the daemon and
brings it back. audit.py asks the daemon what is there, and oracle.py, which has never seen a daemon, judges.
"""

"""Histories: what clients of a store did and were told, and whether that can be true. Shared by the proofs.

Three parts that know nothing of each other's work. workload.py loads a store through `Subject` (subject.py: a daemon,
or an engine in this process) and writes down what it sent, was told and was shown (submissions.py). Faults are each
proof's own. audit.py asks the store what is there afterwards, and oracle.py, which has never seen a store, judges.
"""

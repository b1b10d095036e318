"""The attacks that `tools/attack_edge.py` runs against a daemon, and what they are made with."""

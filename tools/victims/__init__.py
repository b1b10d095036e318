"""Victims: processes of their own that run the engine on real files, load it and tell what they see until they die.

A victim is forked from a process that has imported everything, so one costs about 0.1 s. pipe.py carries what it sends
and is told to its parent as it happens, child.py is its life, victim.py starts it, hears it out and has a second one
open the store and show what is there, for the oracle of `histories` to judge. What ends it is its user's business.
"""

"""The parts of proof_simulation.py: a whole engine in one thread, on a clock and a disk that are not real.

plan.py draws from a seed what shall happen; world.py is one life of the process that the engine runs in, with the disk
(disk.py), the view (view.py) and the threads (threads.py) of that life; faults.py does to it what was planned; judge.py
holds what is found against what the clients know. run.py lets one seed happen, coverage.py counts what happened,
shrink.py finds the smallest plan that still fails, and workers.py does all this for many seeds.
"""

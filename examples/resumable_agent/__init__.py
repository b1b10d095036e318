"""An agent that carries out a recorded run, one transaction a step, and resumes wherever it was killed.

The way of the data: recording.py reads the file, steps.py turns it into commits and back, agent.py commits them,
proof.py rebuilds the recording from the agent's replay and compares. `python -m examples.resumable_agent` is all of
that in one command, demo.py the same with kills in the middle.
"""

"""Mutants of the engine: one defect each, made on purpose, that some proof must catch. Run by proof_mutants.py.

defect.py says what a defect is, of_*.py have the defects by what they are of, and catalogue.py all of them; workshop.py
makes a mutated copy of the package and runs the proof that has to find the defect on it.
"""

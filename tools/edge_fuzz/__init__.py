"""The parts of `tools/fuzz_edge.py`: what is sent, who receives it, and who reads the answers."""

"""What proof_kill.py does to a daemon: how it ends, and what happens before it serves again."""

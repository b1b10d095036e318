"""The parts of proof_linearizability.py, each of which knows nothing of the others' work.

clients.py loads a daemon over real connections, and bank.py moves money between agents beside it; journal.py writes
down what they sent, were told and were shown. proxy.py stands between them and the daemon and cuts connections;
lives.py ends the daemon and brings it back. histories/ judges what was written down, and money.py that no money was
made or lost.
"""

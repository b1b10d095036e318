"""The parts of bench_edge.py.

What runs in processes of its own, so that the load is not the server's and not the bench's: grpc_load.py (grpc.aio),
frame_load.py and replay_reader.py (bare sockets, with the frames of frames.py, and requests of prepared.py),
own_client_load.py (AsyncStatehouse), seeding.py (a store with something in it). Each is run as `python -m
edge_load.NAME`, answers jobs (jobs.py) and reads clocks (meter.py). The bench's side of them is processes.py;
servers.py has the servers, of which earlier.py brings back the daemon of an earlier revision; measurements.py takes
the rounds, and figures.py makes of them what is printed.
"""

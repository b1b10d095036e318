"""The parts of bench_edge.py.

What runs in processes of its own, so that the load is not the server's and not the bench's: grpc_load.py (grpc.aio),
own_client_load.py (AsyncStatehouse), replay_reader.py (HTTP/2 frames on a bare socket), seeding.py (a store with
something in it). Each is run as `python -m edge_load.NAME`, answers jobs (jobs.py) and reads clocks (meter.py). The
bench's side of them is processes.py; servers.py has the servers, of which earlier.py brings back the daemon of an
earlier revision; figures.py makes of rounds what is printed.
"""

"""Failpoints: named places in the engine where a process can be made to exit, stall or fail.

In the source a failpoint is the comment line `# failpoint: <name>`, so it costs nothing where nobody asks for it.
hook.py has the engine imported with these lines as calls, arming.py says what such a call does, places.py has every
place with what may be done there, here.py joins the three. cases.py is what proof_failpoints.py tries, and case.py
tries one; daemon.py is a daemon with failpoints, and on_daemon.py tries those.
"""

"""The parts of proof_syscalls.py: system calls of the commit path that fail, once and from then on.

Two instruments strike. In this process, a `Disk` and a view that fail at a call (faulty_disk.py, faulty_view.py) under
an engine on virtual time (in_process.py): every call there is, each in every way. And the kernel's own calls, by the
fault injection of strace, in an engine that is a process of its own (traced.py): what LevelDB does is among them.

calls.py says what a call is, where it goes and how it fails; promises.py what must hold whatever failed; the clients
and the judge are those of `histories`.
"""

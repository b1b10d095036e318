"""HTTP/2 for gRPC, without I/O: bytes go in, what they mean comes out, and what is to be sent is collected.

Read it in this order: `frames` (what stands on the wire, as a table), `streams` (what a stream may do when, as
data), `header_blocks` (HPACK), `budgets` (what a peer may have us do for nothing), `connection` (all of it at
work). A server and a client subclass `Connection`, in `rpc/server/protocol.py` and `rpc/client/protocol.py`.

The numbers in brackets are sections of RFC 9113 (HTTP/2) and RFC 7541 (HPACK).
"""

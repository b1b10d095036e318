"""The service in memory, behind grpcio: another implementation of gRPC to hold the clients against.

It keeps the contract for well-behaved calls and can be told to misbehave (`hold`). Run as a program it serves
until it is killed and prints its port, so that a test can kill it with -9.
"""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.message_factory import GetMessageClass

from statehouse.v1 import statehouse_pb2 as pb

OPTIONS = [("grpc.so_reuseport", 0)]
"""Else the system may give two servers the same free port, and clients to either."""
SERVICE = pb.DESCRIPTOR.services_by_name["StatehouseService"]


class MemoryService:
    def __init__(self):
        self.lock = threading.RLock()
        self.open = {}
        self.committed = {}
        self.events = []  # (agent, ReplayEvent), in commit order
        self.versions = {}  # (agent, key) -> [GetStateResponse of version 1, 2, ...]
        self.hold = set()  # names of calls that are not answered until `released`
        self.released = threading.Event()
        self.lose_answer_of_commit = False
        self.held = []
        self.cancelled = []
        self.sent_events = 0

    def health(self, request, context):
        return pb.HealthResponse(status="ok")

    def version(self, request, context):
        return pb.VersionResponse(version="memory", git_sha="none")

    def begintransaction(self, request, context):
        txn_id = f"t{len(self.open) + len(self.committed) + 1}"
        self.open[txn_id] = []
        return pb.BeginTransactionResponse(txn_id=txn_id)

    def write(self, request, context):
        self._staged(request.txn_id, context).append(request)
        return pb.WriteResponse()

    def delete(self, request, context):
        self._staged(request.txn_id, context).append(request)
        return pb.DeleteResponse()

    def commit(self, request, context):
        staged = self._staged(request.txn_id, context)
        del self.open[request.txn_id]
        commit_ts = self.committed[request.txn_id] = len(self.committed) + 1
        events = {}
        for each in staged:
            agent = (each.namespace or "default", each.agent_id)
            event = events.setdefault(agent, pb.ReplayEvent(txn_id=request.txn_id, commit_ts=commit_ts))
            versions = self.versions.setdefault((*agent, each.key), [])
            state = pb.GetStateResponse(version=len(versions) + 1, commit_ts=commit_ts)
            operation = event.operations.add(key=each.key, version=state.version)
            if isinstance(each, pb.WriteRequest):
                state.exists = True
                state.value.CopyFrom(each.value)
                operation.value.CopyFrom(each.value)
            versions.append(state)
        self.events += events.items()
        if self.lose_answer_of_commit:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return pb.CommitResponse(commit_ts=commit_ts)

    def abort(self, request, context):
        if request.txn_id in self.committed:
            self._staged(request.txn_id, context)
        self.open.pop(request.txn_id, None)
        return pb.AbortResponse()

    def getstate(self, request, context):
        versions = self.versions.get((request.namespace or "default", request.agent_id, request.key))
        return versions[-1] if versions else pb.GetStateResponse()

    def getstateatversion(self, request, context):
        versions = self.versions.get((request.namespace or "default", request.agent_id, request.key), [])
        found = versions[request.version - 1] if 1 <= request.version <= len(versions) else pb.GetStateResponse()
        return pb.GetStateAtVersionResponse.FromString(found.SerializeToString())

    def listkeys(self, request, context):
        return pb.ListKeysResponse(keys=[key for key, _ in self._live(request, "")])

    def scanprefix(self, request, context):
        answer = pb.ScanPrefixResponse()
        for key, state in self._live(request, request.prefix):
            answer.entries.add(key=key, value=state.value, version=state.version, commit_ts=state.commit_ts)
        return answer

    def replay(self, request, context):
        context.add_callback(lambda: self.cancelled.append("Replay"))
        for agent, event in list(self.events):
            if agent != (request.namespace or "default", request.agent_id):
                continue
            first = request.start_ts if request.HasField("start_ts") else 0
            last = request.end_ts if request.HasField("end_ts") else event.commit_ts
            if first <= event.commit_ts <= last:
                self.sent_events += 1
                yield event

    def _live(self, request, prefix):
        agent = (request.namespace or "default", request.agent_id)
        found = [
            (key, versions[-1])
            for (namespace, agent_id, key), versions in self.versions.items()
            if (namespace, agent_id) == agent and key.startswith(prefix) and versions[-1].exists
        ]
        return sorted(found, key=lambda each: each[0].encode())

    def _staged(self, txn_id, context):
        if txn_id in self.open:
            return self.open[txn_id]
        if txn_id in self.committed:
            detail = pb.StatehouseError(
                code=pb.TXN_ALREADY_COMMITTED, message="committed", details={"commit_ts": str(self.committed[txn_id])}
            )
            status = grpc.StatusCode.FAILED_PRECONDITION
        else:
            detail = pb.StatehouseError(code=pb.TXN_NOT_FOUND, message=f"no transaction {txn_id}")
            status = grpc.StatusCode.NOT_FOUND
        context.set_trailing_metadata([("statehouse-error-bin", detail.SerializeToString())])
        return context.abort(status, detail.message)

    def handlers(self):
        def unary(method, name):
            def answer(request, context):
                context.add_callback(lambda: self.cancelled.append(name))
                if name in self.hold:
                    self.held.append(name)
                    self.released.wait(60)
                with self.lock:
                    return method(request, context)

            return answer

        methods = {}
        for descriptor in SERVICE.methods:
            method = getattr(self, descriptor.name.lower())
            coding = {
                "request_deserializer": GetMessageClass(descriptor.input_type).FromString,
                "response_serializer": lambda message: message.SerializeToString(),
            }
            if descriptor.server_streaming:
                methods[descriptor.name] = grpc.unary_stream_rpc_method_handler(method, **coding)
            else:
                methods[descriptor.name] = grpc.unary_unary_rpc_method_handler(unary(method, descriptor.name), **coding)
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)


def serve(service, port=0):
    """A server that serves on a port, or a free one, and that port."""
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=OPTIONS)
    server.add_generic_rpc_handlers((service.handlers(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


def main():
    service = MemoryService()
    service.hold = {"ListKeys"}
    _server, port = serve(service)
    print(port, flush=True)  # noqa: T201  whoever started it reads the port
    signal.pause()  # until it is killed


if __name__ == "__main__":
    main()

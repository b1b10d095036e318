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
        self.answered = {}  # idempotency key -> TransactResponse
        self.leases = {}  # agent -> pb.Lease
        self.transacts = []  # every TransactRequest that came
        self.commits = []  # every CommitRequest
        self.lineages = []  # every GetLineageRequest
        self.ends = []  # every DeleteAgentRequest
        self.origins = {}  # (namespace, agent_id) of a fork -> pb.ForkOrigin, in the order in which they were made
        self.follows = 0
        self.conflicts = 0  # how many Transacts somebody else is faster than
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
        self.commits.append(request)
        staged = self._staged(request.txn_id, context)
        self._check(request.preconditions, context)
        del self.open[request.txn_id]
        return pb.CommitResponse(commit_ts=self._commit(request.txn_id, staged, request.metadata, context)[0])

    def transact(self, request, context):
        self.transacts.append(request)
        if request.idempotency_key in self.answered:
            return self.answered[request.idempotency_key]
        if self.conflicts:
            self.conflicts -= 1
            self._commit(f"other{len(self.committed)}", request.operations, {}, context)
        self._check(request.preconditions, context)
        txn_id = f"t{len(self.open) + len(self.committed) + 1}"
        commit_ts, versions = self._commit(txn_id, request.operations, request.metadata, None)
        answer = pb.TransactResponse(commit_ts=commit_ts, versions=versions, txn_id=txn_id)
        if request.idempotency_key:
            self.answered[request.idempotency_key] = pb.TransactResponse.FromString(answer.SerializeToString())
            self.answered[request.idempotency_key].deduplicated = True
        self._lose(context)
        return answer

    def _check(self, preconditions, context):
        failed = []
        for index, each in enumerate(preconditions):
            versions = self.versions.get((each.namespace or "default", each.agent_id, each.key), [])
            if each.WhichOneof("condition") == "version" and each.version != len(versions):
                failed.append(pb.FailedPrecondition(index=index, version=len(versions), exists=bool(versions)))
        if failed:
            detail = pb.StatehouseError(code=pb.PRECONDITION_FAILED, message="no", failed_preconditions=failed)
            self._fail(context, grpc.StatusCode.ABORTED, detail)

    def _commit(self, txn_id, staged, metadata, context):
        commit_ts = self.committed[txn_id] = len(self.committed) + 1
        events, given = {}, []
        for each in staged:
            agent = (each.namespace or "default", each.agent_id)
            new = pb.ReplayEvent(txn_id=txn_id, commit_ts=commit_ts, namespace=agent[0], agent_id=agent[1])
            event = events.setdefault(agent, new)
            event.metadata.update(metadata)
            versions = self.versions.setdefault((*agent, each.key), [])
            state = pb.GetStateResponse(version=len(versions) + 1, commit_ts=commit_ts)
            operation = event.operations.add(key=each.key, version=state.version)
            given.append(state.version)
            if not isinstance(each, pb.DeleteRequest) and each.HasField("value"):
                state.exists = True
                state.value.CopyFrom(each.value)
                operation.value.CopyFrom(each.value)
                if each.HasField("ttl_s"):  # nothing expires here; a commit is made at its commit_ts, in seconds
                    operation.ttl_s = each.ttl_s
                    state.expires_at.seconds = commit_ts + each.ttl_s
            versions.append(state)
        self.events += events.items()
        self._lose(context)
        return commit_ts, given

    def _lose(self, context):
        if context is not None and self.lose_answer_of_commit:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")

    def acquirelease(self, request, context):
        agent = (request.namespace, request.agent_id)
        newest = self.leases.get(agent, pb.Lease())
        if newest.holder:
            self._fail(context, grpc.StatusCode.FAILED_PRECONDITION, pb.StatehouseError(code=pb.LEASE_NOT_HELD))
        return self._lease(agent, newest.epoch + 1, request.holder, request.ttl_ms)

    def renewlease(self, request, context):
        return self._lease(*self._held(request, context), request.ttl_ms)

    def releaselease(self, request, context):
        agent, epoch, _ = self._held(request, context)
        return pb.ReleaseLeaseResponse(commit_ts=self._lease(agent, epoch, "", 0).commit_ts)

    def getlease(self, request, context):
        lease = self.leases.get((request.namespace, request.agent_id))
        return pb.GetLeaseResponse(lease=lease, held=lease is not None and bool(lease.holder))

    def _held(self, request, context):
        agent = (request.namespace, request.agent_id)
        newest = self.leases.get(agent, pb.Lease())
        if newest.epoch != request.epoch or not newest.holder:
            self._fail(context, grpc.StatusCode.FAILED_PRECONDITION, pb.StatehouseError(code=pb.LEASE_NOT_HELD))
        return agent, newest.epoch, newest.holder

    def _lease(self, agent, epoch, holder, ttl_ms):
        lease = self.leases[agent] = pb.Lease(epoch=epoch, holder=holder, commit_ts=len(self.committed))
        lease.expires_at.FromMilliseconds(1_000_000_000_000 + ttl_ms)
        return lease

    def forkagent(self, request, context):
        """Lineage and refusals are kept; what a fork inherits is the daemon's to show."""
        parent = (request.namespace, request.agent_id)
        if parent not in {agent for agent, _ in self.events}:
            self._fail(context, grpc.StatusCode.NOT_FOUND, pb.StatehouseError(code=pb.AGENT_NOT_FOUND, message="none"))
        name = (request.namespace, request.new_agent_id)
        if name in self.origins or name in {agent for agent, _ in self.events}:
            detail = pb.StatehouseError(code=pb.AGENT_EXISTS, message="taken")
            self._fail(context, grpc.StatusCode.ALREADY_EXISTS, detail)
        at_ts = request.at_ts if request.HasField("at_ts") else len(self.committed)
        commit_ts = self.committed[f"fork{len(self.committed)}"] = len(self.committed) + 1
        self.origins[name] = pb.ForkOrigin(agent_id=request.agent_id, at_ts=at_ts, commit_ts=commit_ts)
        self._lose(context)
        return pb.ForkAgentResponse(commit_ts=commit_ts, at_ts=at_ts, depth=1)

    def getlineage(self, request, context):
        self.lineages.append(request)
        found = [
            pb.ForkOrigin(agent_id=agent_id, at_ts=origin.at_ts, commit_ts=origin.commit_ts)
            for (namespace, agent_id), origin in reversed(self.origins.items())
            if (namespace, origin.agent_id) == (request.namespace, request.agent_id)
            and origin.commit_ts < (request.before_ts or 2**64)
        ]
        origin = self.origins.get((request.namespace, request.agent_id))
        return pb.GetLineageResponse(
            ancestors=[] if origin is None else [origin],
            forks=found[: request.limit or 1_000],
            more=len(found) > (request.limit or 1_000),
        )

    def deleteagent(self, request, context):
        self.ends.append(request)
        self._check(request.preconditions, context)
        keys = [key for key, _ in self._live(request, "")]
        removed = [
            pb.TransactOperation(namespace=request.namespace, agent_id=request.agent_id, key=key) for key in keys
        ]
        commit_ts, _ = self._commit(f"end{len(self.committed)}", removed, request.metadata, context)
        return pb.DeleteAgentResponse(commit_ts=commit_ts, deleted_keys=len(keys))

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
        found, token = self._page([key for key, _ in self._live(request, "")], request)
        return pb.ListKeysResponse(keys=found, next_page_token=token)

    def scanprefix(self, request, context):
        found, token = self._page(self._live(request, request.prefix), request)
        answer = pb.ScanPrefixResponse(next_page_token=token)
        for key, state in found:
            entry = answer.entries.add(key=key, value=state.value, version=state.version, commit_ts=state.commit_ts)
            if state.HasField("expires_at"):
                entry.expires_at.CopyFrom(state.expires_at)
        return answer

    def batchget(self, request, context):
        answer = pb.BatchGetResponse()
        for each in request.keys:
            found = self.getstate(each, context)
            entry = answer.entries.add(namespace=each.namespace, agent_id=each.agent_id, key=each.key)
            entry.MergeFromString(found.SerializeToString())
        return answer

    def history(self, request, context):
        versions = self.versions.get((request.namespace, request.agent_id, request.key), [])
        for state in versions[: (request.before_version or len(versions) + 1) - 1][::-1][: request.limit or None]:
            yield pb.HistoryEntry.FromString(state.SerializeToString())

    def diff(self, request, context):
        for key, state in self._live(request, request.prefix):
            yield pb.DiffEntry(key=key, before=pb.GetStateResponse(), after=state)

    def listagents(self, request, context):
        agents = sorted({agent for agent, _ in self.events if agent[0] == request.namespace})
        found, token = self._page([agent for agent in agents if agent[1].startswith(request.prefix)], request)
        infos = [pb.AgentInfo(namespace=namespace, agent_id=agent_id, commits=1) for namespace, agent_id in found]
        return pb.ListAgentsResponse(agents=infos, next_page_token=token)

    def listnamespaces(self, request, context):
        names = sorted({agent[0] for agent, _ in self.events if agent[0].startswith(request.prefix)})
        found, token = self._page(names, request)
        infos = [pb.NamespaceInfo(namespace=name) for name in found]
        return pb.ListNamespacesResponse(namespaces=infos, next_page_token=token)

    def _page(self, found, request):
        first = int(request.page_token or 0)
        end = first + (request.limit or len(found))
        return found[first:end], str(end).encode() if end < len(found) else b""

    def replay(self, request, context):
        return self._replay(request, context, lambda agent: agent == (request.namespace or "default", request.agent_id))

    def replaylog(self, request, context):
        return self._replay(
            request,
            context,
            lambda agent: (
                agent[1].startswith(request.agent_prefix)
                and (not request.HasField("namespace") or agent[0] == request.namespace)
            ),
        )

    def _replay(self, request, context, wanted):
        context.add_callback(lambda: self.cancelled.append("Replay"))
        self.follows += request.follow
        next_ts = request.start_ts if request.HasField("start_ts") else 0
        last = request.end_ts if request.HasField("end_ts") else 2**64 - 1
        left = request.limit or 2**64
        told = False
        while True:
            with self.lock:
                events, head = list(self.events), len(self.committed)
            for agent, event in events:
                if wanted(agent) and next_ts <= event.commit_ts <= last and left:
                    self.sent_events += 1
                    left -= 1
                    yield event
            next_ts = max(next_ts, head + 1)
            if not request.follow or next_ts > last or not left:
                return
            if request.bookmarks and not told:
                yield pb.ReplayEvent(commit_ts=head, bookmark=True)
                told = True
            if not context.is_active() or self.released.wait(0.01):
                return

    def head(self, request, context):
        return pb.HeadResponse(commit_ts=len(self.committed), chain=bytes(32), store_id=bytes(16))

    def verify(self, request, context):
        yield pb.VerifyEvent(progress=pb.VerifyProgress(stage="log"))
        for head in request.heads:
            finding = pb.VerifyFinding(kind="head-cut", message="gone", commit_ts=head.commit_ts)
            yield pb.VerifyEvent(finding=finding)
        yield pb.VerifyEvent()  # of a kind that only a newer daemon has
        done = pb.VerifyDone(sound=not request.heads, head=self.head(None, None), heads=len(request.heads))
        yield pb.VerifyEvent(done=done)

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
        return self._fail(context, status, detail)

    def _fail(self, context, status, detail):
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

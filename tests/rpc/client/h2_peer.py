"""A server's side of a connection, by h2, another implementation of HTTP/2: joined to a protocol byte for byte."""

import h2.config
import h2.connection
import h2.events
import h2.settings

from statehouse.rpc.client.call import Call
from statehouse.rpc.client.protocol import ClientProtocol, Keepalive
from statehouse.rpc.client.request_headers import Greeting

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
PATH = "/statehouse.v1.StatehouseService/GetState"


def framed(message, flag=0):
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


class H2Peer:
    """`self.events` is what h2 made of what the client sent."""

    def __init__(self, settings=None):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings or {})
        self.h2.initiate_connection()
        self.events = []

    def take(self, data):
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def answer(self, stream_id, *messages, headers=HEADERS, trailers=OK):
        self.h2.send_headers(stream_id, headers)
        for message in messages:
            self.h2.send_data(stream_id, framed(message))
        self.h2.send_headers(stream_id, trailers, end_stream=True)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class Joined:
    """A client's protocol and its peer."""

    def __init__(self, settings=None, greeting=None, keepalive=None):
        self.peer = H2Peer(settings)
        greeting = Greeting("db:1") if greeting is None else greeting
        keepalive = Keepalive() if keepalive is None else keepalive
        self.client = ClientProtocol(greeting, keepalive, address="db:1", now=0.0)
        self.exchange()

    def exchange(self, now=0.0):
        """Carry bytes both ways until nobody has anything to say."""
        while True:
            if self.client.output:
                self.peer.take(bytes(self.client.take_output()))
            data = self.peer.h2.data_to_send()
            if data:
                self.client.receive(data, now)
            elif not self.client.output:
                return

    def call(self, message=b"request", *, streaming=False, deadline=30.0, timeout_s=30.0, now=0.0, path=PATH):
        call = Call("GetState", deadline, 30.0, streaming=streaming)
        self.client.start(call, path, message, timeout_s, now)
        self.exchange(now)
        return call

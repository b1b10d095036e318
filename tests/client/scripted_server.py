"""A server that does what a test tells it, frame by frame: for what no honest gRPC server can be made to do."""

import socket
import threading
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.settings

HEADERS = [(":status", "200"), ("content-type", "application/grpc+proto")]


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


class Peer:
    """One connection from a client; what a script is given to act on."""

    def __init__(self, number, connection, sock):
        self.number = number
        """0 for the first connection, 1 for the next."""
        self.h2 = connection
        self.socket = sock

    def answer(self, stream_id, message=b"", trailers=(("grpc-status", "0"),)):
        self.h2.send_headers(stream_id, HEADERS)
        self.h2.send_data(stream_id, framed(message))
        self.h2.send_headers(stream_id, trailers, end_stream=True)

    def refuse(self, stream_id, *headers):
        self.h2.send_headers(stream_id, [*HEADERS, *headers], end_stream=True)

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def hang_up(self):
        self.flush()
        self.socket.shutdown(socket.SHUT_RDWR)


class ScriptedServer:
    """Calls `script(peer, stream_id)` when a request is complete, and `on_event(peer, event)` for every event."""

    def __init__(self, script, on_event=lambda peer, event: None, settings=None):
        self._script = script
        self._on_event = on_event
        self._settings = settings or {}
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._sockets.append(sock)
                thread = threading.Thread(target=self._serve, args=(self.connections, sock))
                self.connections += 1
                self._threads.append(thread)
                thread.start()

    def _serve(self, number, sock):
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        peer = Peer(number, h2.connection.H2Connection(config), sock)
        peer.h2.local_settings = h2.settings.Settings(client=False, initial_values=self._settings)
        peer.h2.initiate_connection()
        with suppress(OSError):
            peer.flush()
            while chunk := sock.recv(65536):
                events = peer.h2.receive_data(chunk)
                given_up = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
                for event in events:
                    self._on_event(peer, event)
                    if isinstance(event, h2.events.DataReceived):
                        peer.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if isinstance(event, h2.events.StreamEnded) and event.stream_id not in given_up:
                        self._script(peer, event.stream_id)
                peer.flush()


class RawServer:
    """Sends some bytes to whoever connects, and then nothing."""

    def __init__(self, greeting=b"", *, hang_up=False):
        self._greeting = greeting
        self._hang_up = hang_up
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._sockets.append(sock)
                sock.sendall(self._greeting)
                if self._hang_up:
                    sock.shutdown(socket.SHUT_RDWR)

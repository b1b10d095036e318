"""A line to a server that breaks again and again: each connection after so many bytes of answers."""

import socket
import threading
from contextlib import suppress


class BreakingLine:
    def __init__(self, address, after_bytes):
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._after_bytes = after_bytes
        self._sockets = []
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.breaks = 0
        self._start(self._accept)

    def close(self):
        self._hang_up(self._listener)
        for sock in self._sockets:
            self._hang_up(sock)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                self._start(self._carry, client, server, None)
                self._start(self._carry, server, client, self._after_bytes)

    def _carry(self, source, sink, most_bytes):
        with suppress(OSError):
            while chunk := source.recv(16_384):
                if most_bytes is not None:
                    chunk = chunk[:most_bytes]
                    most_bytes -= len(chunk)
                sink.sendall(chunk)
                if most_bytes == 0:
                    self.breaks += 1
                    break
        self._hang_up(source)
        self._hang_up(sink)

    @staticmethod
    def _hang_up(sock):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

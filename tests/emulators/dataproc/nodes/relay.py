"""From a node's own loopback to a server on this host's: what listens in the node's network is served by threads here,
so that one URL (http://127.0.0.1:PORT) is right on the host and in every node, and nothing else of the host is."""

from __future__ import annotations

import socket
import threading

_CHUNK = 1 << 18


class Relay:
    """Passes on whatever connects to `listener`, which it closes. An open socket would keep a dead node's network
    namespace alive: close() ends them all."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self._listener, self._target = listener, target
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def hold(self, held: bool) -> None:
        """Let nothing through, as when the network is cut: nobody is told."""
        self._flowing.clear() if held else self._flowing.set()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections = list(self._open)
        _shut(self._listener)  # wakes accept(), which close() does not
        self._acceptor.join()
        self._listener.close()
        self._flowing.set()
        for connection in connections:
            _shut(connection)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._flowing.wait()
        try:
            far = socket.create_connection(self._target, timeout=30)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {near, far}
            if self._closed:
                _shut(near)
                _shut(far)
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while count := source.recv_into(buffer):
                self._flowing.wait()
                sink.sendall(buffer[:count])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(source)
            _shut(sink)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass

"""HTTP/1.1 on loopback in threads, with the rude ends that a test needs.

Comes in: a function from a request to an answer. Goes out: bytes; None as an answer, or
`Answer.cut`, ends the connection with a reset. A stop closes all connections, the port stays.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAUSE_S = 0.02


@dataclass
class Request:
    """A request that arrived whole; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What goes back; `chunked` as the gateway sends outputs, `cut` breaks off at its end.

    `trickle` sends it a byte at a time, from its headers ("head") or its body on ("body"), for
    half a minute.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    cut: bool = False
    trickle: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet: no waiting for acknowledgements
    serve: Callable[[Request], Answer | None]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            size = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(size)
            if len(data) < size:
                raise ConnectionError("the client died in the middle of its request")
            return data
        out = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            piece = self.rfile.read(size)
            if len(piece) < size:
                raise ConnectionError("the client died in the middle of its request")
            out.append(piece)
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(out)

    def _handle(self) -> None:
        headers = {k.lower(): v for k, v in self.headers.items()}
        try:
            request = Request(self.command, self.path, headers, self._body())
            answer = type(self).serve(request)
            if answer is None:
                self.close_connection = True
                self.server.broken.add(self.connection)  # type: ignore[attr-defined]
            else:
                self._send(answer)
        except OSError:  # the client is dead, or the server was stopped
            self.close_connection = True

    def _trickle(self, answer: Answer) -> None:
        """Send a byte at a time, and not end within any patience of a test."""
        head = f"HTTP/1.1 {answer.status} OK\r\nContent-Type: {answer.content_type}\r\n"
        slow, last = b"X-Slow: ", 120
        if answer.trickle == "body":
            head, slow, last = f"{head}\r\n", answer.body, 32
        self.wfile.write(head.encode())
        for byte in itertools.chain(slow, itertools.repeat(last, 1500)):
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server.stopping.wait(PAUSE_S):  # type: ignore[attr-defined]
                break
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        if answer.trickle:
            self._trickle(answer)
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        body = answer.body
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            half = len(body) // 2
            pieces = [p for p in (body[:half], body[half:]) if p]
            body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)
            body += b"" if answer.cut else b"0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if answer.cut:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = _handle


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int, handler: type[_Handler]) -> None:
        self.open: set[socket.socket] = set()
        self.broken: set[socket.socket] = set()
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", port), handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        if request not in self.broken:
            super().shutdown_request(request)
            return
        self.broken.discard(request)
        with contextlib.suppress(OSError):  # a reset, so that the peer sees no clean end
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.close()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Server:
    """A server that can go away and come back on the same port."""

    def __init__(
        self,
        serve: Callable[[Request], Answer | None],
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self._handler = type("Handler", (_Handler,), {"serve": staticmethod(serve)})
        self.port = port
        self.stopping = threading.Event()
        self._server: _Threads | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen. The port is chosen at the first start."""
        if self._server is not None:
            return
        self.stopping.clear()
        self._server = _Threads(self.port, self._handler)
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and break all connections."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        self.stopping.set()
        server.stopping.set()
        server.shutdown()
        server.server_close()
        self._thread.join()
        for connection in list(server.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

"""A proxy on loopback: it leads every host to one server, or refuses.

Comes in: the port of that server, and what the proxy is to ask for. Goes out: tunnels (CONNECT),
single plain requests, and a record of the first lines and credentials that came.
"""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Self


class Proxy:
    """A proxy.

    Parameters
    ----------
    target : int
        Port to which it leads, whatever host is named.
    password : str
        "user:password" that it asks for; "" for none.
    status : int
        With another than 200 it refuses everything.

    Attributes
    ----------
    asked : list of str
        First lines of what it got.
    """

    def __init__(self, target: int = 9, *, password: str = "", status: int = 200) -> None:
        self.target, self.status = target, status
        self.asked: list[str] = []
        self._wanted = ""
        if password:
            self._wanted = f"basic {base64.b64encode(password.encode()).decode()}".lower()
        outer = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    outer._handle(self.request)

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, caller: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = caller.recv(65_536)
            if not more:
                return
            head += more
        lines = head.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        self.asked.append(lines[0])
        given = [v.strip().lower() for k, _, v in (line.partition(":") for line in lines[1:])
                 if k.lower() == "proxy-authorization"]  # fmt: skip
        status = 407 if self._wanted and self._wanted not in given else self.status
        if status != 200:
            caller.sendall(f"HTTP/1.1 {status} No\r\nConnection: close\r\n\r\n".encode())
            return
        method, url, version = lines[0].split(" ")
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            if method == "CONNECT":
                caller.sendall(b"HTTP/1.1 200 Established\r\n\r\n")
            else:
                path = "/" + url.split("/", 3)[3]
                first = f"{method} {path} {version}".encode()
                server.sendall(first + head[len(lines[0]) :])
            _pump(caller, server)


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until a side ends."""
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65_536)
            if not data:
                return
            (other if source is one else one).sendall(data)

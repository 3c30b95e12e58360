"""The WSGI application under the standard library's server, with a thread for each connection."""

from __future__ import annotations

import socketserver
from wsgiref.simple_server import WSGIServer, make_server

from wsgi_app import application


class ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    """A client that keeps its connection must not keep the others waiting."""


with make_server("127.0.0.1", 0, application, server_class=ThreadingServer) as server:
    print("listening on", server.server_port, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")

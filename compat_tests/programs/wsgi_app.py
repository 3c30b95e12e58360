"""A WSGI application: sends bytes, takes bytes, says who it is. Any WSGI server may serve it."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable
from typing import Any

BLOCK = 65536


def content(size: int) -> bytes:
    """The bytes that both ends know."""
    return random.Random(size).randbytes(size)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path.startswith("/bytes/"):
        data = content(int(path.removeprefix("/bytes/")))
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(data)))])
        return (data[begin : begin + BLOCK] for begin in range(0, len(data), BLOCK))
    if path == "/digest":
        return _json(start_response, _digest(environ))
    if path == "/who":
        return _json(start_response, {"pid": os.getpid(), "client": environ["REMOTE_ADDR"]})
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def _digest(environ: dict[str, Any]) -> dict[str, Any]:
    left = int(environ["CONTENT_LENGTH"])
    digest = hashlib.sha256()
    size = 0
    while left and (block := environ["wsgi.input"].read(min(left, BLOCK))):
        if not size:
            print("upload begun", file=environ["wsgi.errors"], flush=True)
        digest.update(block)
        size += len(block)
        left -= len(block)
    return {"sha256": digest.hexdigest(), "size": size}


def _json(start_response: Callable[..., Any], answer: dict[str, Any]) -> Iterable[bytes]:
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

"""A small server that speaks Redis's protocol (RESP 2): strings, counters, publish/subscribe."""

from __future__ import annotations

import signal
import socketserver
import threading
from typing import BinaryIO

store: dict[bytes, bytes] = {}
subscribers: dict[bytes, list[Session]] = {}
lock = threading.Lock()


def encoded(value: object) -> bytes:
    """A reply as RESP has it."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))
    return b"%b\r\n" % str(value).encode()  # "+OK", "-ERR ..."


def read_command(file: BinaryIO) -> list[bytes] | None:
    """The next command's words; None at the end."""
    line = file.readline()
    if not line:
        return None
    words = []
    for _ in range(int(line[1:])):
        size = int(file.readline()[1:])
        words.append(file.read(size + 2)[:-2])
    return words


class Session(socketserver.StreamRequestHandler):
    """One client."""

    def handle(self) -> None:
        while command := read_command(self.rfile):
            with lock:
                self.wfile.write(encoded(self.answer(command[0].upper().decode(), command[1:])))

    def finish(self) -> None:
        with lock:
            for sessions in subscribers.values():
                if self in sessions:
                    sessions.remove(self)
        super().finish()

    def answer(self, name: str, words: list[bytes]) -> object:
        match name:
            case "PING":
                return "+PONG"
            case "CLIENT":
                return "+OK"
            case "SET":
                store[words[0]] = words[1]
                return "+OK"
            case "GET":
                return store.get(words[0])
            case "DEL":
                return sum(store.pop(word, None) is not None for word in words)
            case "INCRBY":
                store[words[0]] = b"%d" % (int(store.get(words[0], b"0")) + int(words[1]))
                return int(store[words[0]])
            case "MGET":
                return [store.get(word) for word in words]
            case "SUBSCRIBE":
                subscribers.setdefault(words[0], []).append(self)
                return [b"subscribe", words[0], 1]
            case "UNSUBSCRIBE":
                return [b"unsubscribe", None, 0]
            case "PUBLISH":
                sessions = subscribers.get(words[0], [])
                for session in sessions:
                    session.wfile.write(encoded([b"message", *words]))
                return len(sessions)
            case _:
                return f"-ERR unknown command '{name}'"


class Server(socketserver.ThreadingTCPServer):
    """Does not wait for clients that stay when it ends."""

    daemon_threads = True


with Server(("127.0.0.1", 0), Session) as server:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("listening on", server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")

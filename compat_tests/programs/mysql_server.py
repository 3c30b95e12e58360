"""A small server that speaks MySQL's client protocol (version 10, text results) before an SQLite database."""

from __future__ import annotations

import hashlib
import os
import signal
import socketserver
import sqlite3
import struct

PASSWORD = b"secret"
CAPABILITIES = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x80000  # passwords, a database named, protocol 4.1, transactions
TEXT, BLOB, INTEGER = 0xFD, 0xFC, 0x08
UTF8, BINARY = 45, 63


def length(value: int) -> bytes:
    """A length-encoded integer."""
    if value < 251:
        return bytes([value])
    if value < 1 << 16:
        return b"\xfc" + struct.pack("<H", value)
    return b"\xfd" + struct.pack("<I", value)[:3]


def string(value: bytes) -> bytes:
    """A length-encoded string."""
    return length(len(value)) + value


def column(name: str, sample: object) -> bytes:
    """A result column's definition."""
    kind, charset = {int: (INTEGER, BINARY), bytes: (BLOB, BINARY)}.get(type(sample), (TEXT, UTF8))
    names = [b"def", b"", b"", b"", name.encode(), name.encode()]
    return b"".join(map(string, names)) + struct.pack("<BHIBHBxx", 12, charset, 1 << 24, kind, 0, 0)


def cell(value: object) -> bytes:
    """A value of a row."""
    if value is None:
        return b"\xfb"
    return string(value if isinstance(value, bytes) else str(value).encode())


class Session(socketserver.StreamRequestHandler):
    """One client, with a database of its own."""

    def read_packet(self) -> bytes | None:
        header = self.rfile.read(4)
        if len(header) < 4:
            return None
        self.sequence = header[3] + 1
        return self.rfile.read(int.from_bytes(header[:3], "little"))

    def write_packets(self, *payloads: bytes) -> None:
        message = b""
        for payload in payloads:
            message += struct.pack("<I", len(payload))[:3] + bytes([self.sequence & 255]) + payload
            self.sequence += 1
        self.wfile.write(message)

    def handle(self) -> None:
        if not self.log_in():
            return
        database = sqlite3.connect(":memory:", isolation_level=None)
        try:
            while (packet := self.read_packet()) and packet[0] != 1:  # COM_QUIT
                if packet[0] == 3:
                    self.query(database, packet[1:].decode())
                elif packet[0] == 14:  # COM_PING
                    self.ok(0)
        finally:
            database.close()

    def log_in(self) -> bool:
        salt = bytes(byte % 127 + 1 for byte in os.urandom(20))
        self.sequence = 0
        self.write_packets(
            b"\x0a8.0.0-small\0"
            + struct.pack("<I", 1)
            + salt[:8]
            + b"\0"
            + struct.pack("<HBHHB10x", CAPABILITIES & 0xFFFF, UTF8, 2, CAPABILITIES >> 16, 21)
            + salt[8:]
            + b"\0mysql_native_password\0"
        )
        packet = self.read_packet()
        if packet is None:
            return False
        _, _, rest = packet[32:].partition(b"\0")  # past flags and the user's name
        once = hashlib.sha1(PASSWORD).digest()
        mask = hashlib.sha1(salt + hashlib.sha1(once).digest()).digest()
        if rest[1 : 1 + rest[0]] != bytes(a ^ b for a, b in zip(once, mask, strict=True)):
            self.error(1045, "28000", "Access denied")
            return False
        self.ok(0)
        return True

    def ok(self, rows: int) -> None:
        self.write_packets(b"\0" + length(rows) + length(0) + struct.pack("<HH", 2, 0))

    def error(self, code: int, state: str, text: str) -> None:
        self.write_packets(b"\xff" + struct.pack("<H", code) + f"#{state}{text}".encode())

    def query(self, database: sqlite3.Connection, sql: str) -> None:
        if sql.upper().startswith("SET ") or sql.upper() in ("COMMIT", "ROLLBACK"):
            return self.ok(0)
        try:
            cursor = database.execute(sql.replace("_binary'", "'"))
            rows = cursor.fetchall()
        except sqlite3.Error as error:
            return self.error(1064, "42000", str(error))
        if cursor.description is None:
            return self.ok(max(0, cursor.rowcount))
        end = b"\xfe" + struct.pack("<HH", 0, 2)
        samples = rows[0] if rows else [""] * len(cursor.description)
        columns = [column(name[0], sample) for name, sample in zip(cursor.description, samples, strict=True)]
        packed = [b"".join(map(cell, row)) for row in rows]
        self.write_packets(length(len(columns)), *columns, end, *packed, end)
        return None


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

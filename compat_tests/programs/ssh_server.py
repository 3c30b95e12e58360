"""An SSH server on paramiko: one command, and SFTP in a directory. Argument: the directory."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import threading

import paramiko

ROOT = os.path.realpath(sys.argv[1])
LIMIT = 30.0  # s


class Server(paramiko.ServerInterface):
    """Lets user "u" in with password "p", who may run "digest"."""

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if (username, password) == ("u", "p") else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if command != b"digest":
            return False
        threading.Thread(target=digest, args=(channel,)).start()
        return True


def digest(channel: paramiko.Channel) -> None:
    """Sends back all that comes, and on the error stream its hash."""
    channel.settimeout(LIMIT)
    sha256 = hashlib.sha256()
    while block := channel.recv(65536):
        sha256.update(block)
        channel.sendall(block)
    channel.sendall_stderr(sha256.hexdigest().encode())
    channel.send_exit_status(7)
    channel.close()


class Handle(paramiko.SFTPHandle):
    """An open file."""

    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class Files(paramiko.SFTPServerInterface):
    """The files under ROOT."""

    def _path(self, path: str) -> str:
        return ROOT + self.canonicalize(path)

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes]:
        return [
            paramiko.SFTPAttributes.from_stat(entry.stat(), entry.name) for entry in os.scandir(self._path(path))
        ]

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(self._path(path)))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        try:
            descriptor = os.open(self._path(path), flags, 0o600)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle = Handle(flags)
        mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[flags & os.O_ACCMODE]
        handle.readfile = handle.writefile = os.fdopen(descriptor, mode)
        return handle

    def remove(self, path: str) -> int:
        os.remove(self._path(path))
        return paramiko.SFTP_OK


def serve(sock: socket.socket) -> None:
    """One client, in paramiko's own thread until it leaves."""
    transport = paramiko.Transport(sock)
    transport.add_server_key(key)
    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
    transport.start_server(server=Server())
    transport.join()


key = paramiko.ECDSAKey.generate()
with socket.create_server(("127.0.0.1", 0)) as listener:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("listening on", listener.getsockname()[1], "key", key.get_base64(), flush=True)
    try:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()
    except KeyboardInterrupt:
        print("stopped")

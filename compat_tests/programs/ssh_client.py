"""A paramiko client: a command with input and output, files by SFTP. Arguments: host, port, the server's key."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import sys

import paramiko

LIMIT = 30.0  # s
host, port, key = sys.argv[1], int(sys.argv[2]), sys.argv[3]
data = random.Random(2).randbytes(1_000_000)

with paramiko.SSHClient() as client:
    server_key = paramiko.ECDSAKey(data=base64.b64decode(key))
    client.get_host_keys().add(f"[{host}]:{port}", server_key.get_name(), server_key)
    options = {"timeout": LIMIT, "look_for_keys": False, "allow_agent": False}
    try:
        client.connect(host, port, "u", "wrong", **options)
    except paramiko.AuthenticationException:
        client.connect(host, port, "u", "p", **options)
    assert client.get_transport().getpeername() == (host, port)

    stdin, stdout, stderr = client.exec_command("digest", timeout=LIMIT)
    stdin.write(data[:300_000])
    stdin.channel.shutdown_write()
    assert stdout.read() == data[:300_000]
    assert stderr.read() == hashlib.sha256(data[:300_000]).hexdigest().encode()
    assert stdout.channel.recv_exit_status() == 7

    with client.open_sftp() as sftp:
        assert sftp.putfo(io.BytesIO(data), "/a.bin", confirm=True).st_size == len(data)
        assert sftp.listdir("/") == ["a.bin"]
        back = io.BytesIO()
        sftp.getfo("/a.bin", back)
        assert back.getvalue() == data
        with sftp.open("/a.bin", "rb") as file:
            file.seek(500_000)
            assert file.read(1000) == data[500_000:501_000]
        sftp.remove("/a.bin")
        try:
            sftp.stat("/a.bin")
        except FileNotFoundError:
            print("done")

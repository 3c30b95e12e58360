"""Uploads half of a body, waits for a line on standard input, then the rest. Arguments: host, port."""

from __future__ import annotations

import hashlib
import http.client
import json
import sys

from wsgi_app import content

data = content(600_000)
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30.0)
connection.putrequest("POST", "/digest")
connection.putheader("Content-Length", str(len(data)))
connection.endheaders(data[:300_000])
print("half is sent", flush=True)
sys.stdin.readline()
connection.send(data[300_000:])
answer = json.load(connection.getresponse())
connection.close()
assert answer == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
print("answered")

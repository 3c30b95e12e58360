"""Uses the Flask application with requests. Argument: its URL."""

from __future__ import annotations

import hashlib
import pathlib
import random
import sys

import requests

LIMIT = 30.0  # s
url = sys.argv[1]
data = random.Random(1).randbytes(1_500_000)

with requests.Session() as session:
    answer = session.post(f"{url}/files", files={"file": ("a.bin", data)}, data={"note": "für"}, timeout=LIMIT)
    assert answer.json() == {"name": "a.bin", "sha256": hashlib.sha256(data).hexdigest(), "note": "für"}
    source = pathlib.Path(__file__).with_name("flask_app.py").read_bytes()
    assert session.get(f"{url}/self", timeout=LIMIT).content == source
    part = session.get(f"{url}/self", headers={"Range": "bytes=10-99"}, timeout=LIMIT)
    assert (part.status_code, part.content) == (206, source[10:100])
    with session.get(f"{url}/count/20000", stream=True, timeout=LIMIT) as response:
        assert [int(line) for line in response.iter_lines(65536)] == list(range(20_000))
    for visit in range(1, 4):
        answer = session.get(f"{url}/visits", timeout=LIMIT)
        assert answer.json() == {"visits": visit, "host": url.removeprefix("http://"), "client": "127.0.0.1"}
print("done")

"""Moves data both ways with requests: one session, then several threads. Argument: the server's URL."""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import requests
from wsgi_app import content

LIMIT = 30.0  # s
url = sys.argv[1]
pids = set()


def fetch(session: requests.Session, size: int) -> None:
    response = session.get(f"{url}/bytes/{size}", timeout=LIMIT)
    response.raise_for_status()
    assert response.content == content(size)


def upload(session: requests.Session, size: int) -> None:
    data = content(size)
    response = session.post(f"{url}/digest", data=data, timeout=LIMIT)
    response.raise_for_status()
    assert response.json() == {"sha256": hashlib.sha256(data).hexdigest(), "size": size}


def many(number: int) -> None:
    with requests.Session() as session:
        for turn in range(4):
            fetch(session, 10_000 * number + turn)
            upload(session, 10_000 * number + turn)
            answer = session.get(f"{url}/who", timeout=LIMIT).json()
            assert answer["client"] == "127.0.0.1"
            pids.add(answer["pid"])


with requests.Session() as session:
    fetch(session, 2_000_000)
    upload(session, 2_000_000)
    assert session.get(f"{url}/nothing", timeout=LIMIT).status_code == 404
    with session.get(f"{url}/bytes/1000000", stream=True, timeout=LIMIT) as response:
        assert b"".join(response.iter_content(4096)) == content(1_000_000)
with ThreadPoolExecutor(8) as threads:
    list(threads.map(many, range(8)))
print(json.dumps({"pids": sorted(pids)}))

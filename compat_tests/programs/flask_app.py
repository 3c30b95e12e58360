"""A Flask application: files up and down, JSON, a streamed answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request, send_file, session

app = Flask(__name__)
app.secret_key = "not secret"


@app.post("/files")
def take() -> Response:
    file = request.files["file"]
    return jsonify(name=file.filename, sha256=hashlib.sha256(file.read()).hexdigest(), note=request.form["note"])


@app.get("/self")
def give() -> Response:
    return send_file(__file__, mimetype="text/x-python")


@app.get("/count/<int:upto>")
def count(upto: int) -> Response:
    def lines() -> Iterator[str]:
        for number in range(upto):
            yield f"{number}\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/visits")
def visits() -> Response:
    session["visits"] = session.get("visits", 0) + 1
    return jsonify(visits=session["visits"], host=request.host, client=request.remote_addr)

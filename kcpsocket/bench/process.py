"""The processes that a benchmark starts: our workers, and kcp-go's where Go is there."""

from __future__ import annotations

import abc
import json
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ..config import Config
from .transport import Transport

_PACKAGE: Final = Path(__file__).parents[2]  # the directory that holds the package kcpsocket
_EXIT_LIMIT: Final = 10.0  # s
_BUILD_LIMIT: Final = 600.0  # s: the first build on a machine downloads and compiles kcp-go
_PEER: Final = Path("compat_tests", "benchpeer")


class BenchError(RuntimeError):
    """A process of the benchmark failed, or took too long; says which and what it said."""


class Stopped(Exception):
    """No more processes are started: the benchmark was interrupted."""


_live: set[Process] = set()
_live_lock = threading.Lock()
_stopped = threading.Event()


def stop_all() -> None:
    """Kills every process of the benchmark, and lets no other begin (Stopped)."""
    with _live_lock:
        _stopped.set()
        for process in _live:
            process.kill()


class Process:
    """A child process that prints JSON objects, and leaves when its standard input ends. A context manager."""

    def __init__(self, name: str, command: list[str], *, pass_fds: tuple[int, ...] = ()) -> None:
        self.name = name
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with _live_lock:
            if _stopped.is_set():
                raise Stopped
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=_PACKAGE,  # python -m finds this very package here
                text=True,
                pass_fds=pass_fds,
                start_new_session=True,  # Ctrl-C is for the parent, which ends the children
            )
            _live.add(self)
        self._complaints: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                self._complaints.append(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._child.stderr is not None
        self._complaints.extend(self._child.stderr)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    def result(self, key: str, limit: float) -> dict[str, Any]:
        """The next object that has `key`. BenchError: a failure instead, or none within `limit` seconds."""
        while True:
            try:
                value = self._lines.get(timeout=limit)
            except queue.Empty:
                raise BenchError(f"{self.name}: no {key!r} within {limit:g} s") from None
            if value is None:
                self._lines.put(None)
                self._child.wait(_EXIT_LIMIT)
                said = "".join(self._complaints[-20:]).strip()
                raise BenchError(f"{self.name}: ended with code {self._child.returncode}: {said}")
            if "failed" in value:
                raise BenchError(f"{self.name}: {value['failed']}")
            if key in value:
                return value

    def tell(self, word: str) -> None:
        """Puts a line on the process's standard input."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(word + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self.name}: ended: {''.join(self._complaints[-20:]).strip()}") from None

    def cpu(self, limit: float = 30.0) -> float:
        """CPU seconds that it has used."""
        self.tell("usage")
        return float(self.result("cpu", limit)["cpu"])

    def kill(self) -> None:
        """Ends it at once."""
        self._child.kill()

    def end(self) -> None:
        """Lets it leave, or makes it."""
        with _live_lock:
            _live.discard(self)
        assert self._child.stdin is not None
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            self._child.kill()  # it does not read any more
        try:
            self._child.wait(_EXIT_LIMIT)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for reader in self._readers:
            reader.join(_EXIT_LIMIT)
        for stream in (self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._child.kill()
        self.end()


class Side(abc.ABC):
    """One who can play both ends of a benchmark: kcpsocket or TCP from Python, or kcp-go."""

    #: What a table calls it.
    name: str

    @abc.abstractmethod
    def worker(self, specification: dict[str, Any]) -> Process:
        """Starts a process in a role (see worker.py)."""

    @contextmanager
    def server(self, host: str = "127.0.0.1", **extra: Any) -> Iterator[tuple[Process, int]]:
        """A server while the block runs, and its port."""
        with self.worker({"role": "serve", "host": host, **extra}) as process:
            yield process, process.result("listening", 30.0)["listening"]


class Python(Side):
    """Our worker, over some transport."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self.transport = transport

    def worker(self, specification: dict[str, Any]) -> Process:
        text = json.dumps({"transport": self.transport.to_json(), **specification})
        return Process(f"{self.name} {specification['role']}", [sys.executable, "-m", "kcpsocket.bench.worker", text])


class KcpGo(Side):
    """kcp-go, with settings of the same names as Config's."""

    def __init__(self, name: str, program: Path, settings: dict[str, Any]) -> None:
        self.name = name
        self._program = program
        self._settings = settings

    def worker(self, specification: dict[str, Any]) -> Process:
        merged = {**self._settings, **specification}
        options = [f"-{name}={str(value).lower()}" for name, value in merged.items()]  # a bool: true or false
        return Process(f"{self.name} {specification['role']}", [str(self._program), *options])


def go_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Fields of Config as kcp-go's program takes them: modes spelled out, key and cipher by name."""
    config = Config(**settings)
    wanted = ("crypt", "mtu", "sndwnd", "rcvwnd", "datashard", "parityshard", "interval", "resend", "acknodelay")
    result = {name: getattr(config, name) for name in wanted}
    result.update(nodelay=int(bool(config.nodelay)), nc=int(bool(config.nc)), key=settings.get("key") or "")
    return result


def peer_source() -> Path | None:
    """The directory of the Go program's source: in the checkout that this package is in, or that one works in."""
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / _PEER / "go.mod").exists():
            return root / _PEER
    return None


def build_peer(directory: Path) -> tuple[Path | None, str]:
    """Builds kcp-go's side of the benchmarks into `directory`: the program, or None and the reason."""
    if shutil.which("go") is None:
        return None, "Go is not installed (no `go` on PATH)"
    source = peer_source()
    if source is None:
        return None, f"no {_PEER}: start this in a checkout of kcpsocket"
    program = directory / "benchpeer"
    done = subprocess.run(
        ["go", "build", "-buildvcs=false", "-mod=readonly", "-o", str(program), "."],
        cwd=source,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BUILD_LIMIT,
    )
    if done.returncode:
        return None, f"go build failed: {done.stdout.strip()}"
    return program, ""

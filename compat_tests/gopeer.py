"""kcp-go itself as the peer: builds the program in kcpgo/ and runs it as a child process."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

SOURCE = Path(__file__).parent / "kcpgo"
BUILD_LIMIT = 600.0  # s: the first build on a machine downloads and compiles kcp-go
EXIT_LIMIT = 10.0  # s that the peer may take to leave


def go_missing() -> str | None:
    """Why there can be no Go peer here; None when there can."""
    return None if shutil.which("go") else "the Go toolchain is not installed (no `go` on PATH), which builds the peer"


def build(directory: Path) -> Path:
    """Builds the peer into `directory`, nothing elsewhere but Go's own caches; returns the program's path."""
    program = directory / "kcpgo"
    try:
        subprocess.run(
            ["go", "build", "-buildvcs=false", "-mod=readonly", "-o", str(program), "."],
            cwd=SOURCE,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_LIMIT,
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"go build failed:\n{error.stdout}") from None
    return program


class GoPeer:
    """A running kcpgo process that listens or dials; a context manager, which releases it and checks that it went well.

    `role` is echo, sink, source or greet; further keywords become its options (``crypt="aes", datashard=10``). With
    `dial` = (host, port) it connects there, otherwise it listens on a free port of loopback: `address`.
    """

    def __init__(
        self,
        program: Path,
        role: str,
        *,
        dial: tuple[str, int] | None = None,
        deadline: float = 120.0,
        **options: int | str | bool,
    ) -> None:
        where = ["-listen", "127.0.0.1:0"] if dial is None else ["-dial", "{}:{}".format(*dial)]
        settings = [f"-{name}={str(value).lower()}" for name, value in options.items()]  # a bool: true or false
        self._deadline = deadline  # s, from start to end of the process
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (_end closes it)
        self._process = subprocess.Popen(
            [str(program), *where, "-role", role, f"-deadline={deadline}s", *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="kcpgo-output")
        self._reader.start()
        self.address: tuple[str, int] = ("", 0)  #: (host, port) where it listens
        try:
            first = self.report()
            if dial is None:
                host, _, port = first["listening"].rpartition(":")
                self.address = host, int(port)
        except BaseException:
            self._end(kill=True)
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def report(self) -> dict[str, Any]:
        """The next JSON object that the process prints, such as that of a finished session.

        Raises AssertionError with what it said of its failure when there will be none, or none came in time.
        """
        try:
            # The process ends at its own deadline, and says so; a little later than that it is stuck.
            line = self._lines.get(timeout=self._deadline + EXIT_LIMIT)
        except queue.Empty:
            raise AssertionError(f"kcpgo is still running after its deadline of {self._deadline:g} s") from None
        if line is None:
            self._lines.put(None)
            raise AssertionError(f"kcpgo ended: {self._complaint()}")
        return line

    def release(self) -> dict[str, int]:
        """Lets the process end, as everything it sent has arrived; returns kcp-go's counters by name.

        Raises AssertionError when it failed, or reports a session that the test has not asked for.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        counters: dict[str, int] | None = None
        while counters is None:
            line = self.report()
            assert "snmp" in line, f"kcpgo also reports {line}"
            counters = line["snmp"]
        assert self._process.wait(EXIT_LIMIT) == 0, self._complaint()
        return counters

    def _complaint(self) -> str:
        self._errors.seek(0)
        return self._errors.read().strip() or f"exit code {self._process.poll()}, and no message"

    def _end(self, kill: bool) -> None:
        if kill:
            self._process.kill()
        self._process.wait(EXIT_LIMIT)
        self._reader.join(EXIT_LIMIT)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def __enter__(self) -> GoPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._process.stdin is not None and not self._process.stdin.closed:
                self.release()
        finally:
            self._end(kill=self._process.poll() is None)

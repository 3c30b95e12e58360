"""Runs one module's tests to the end, whatever they do: a child that hangs or crashes costs the test it was in."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 60.0  # s that one test may take, or the loading of a module
_HERE = Path(__file__).resolve().parent
_LAST_WORDS = 3.0  # s for a hung child to write its threads' tracebacks


@dataclass
class Outcome:
    """How a test ended: pass, fail, skip, hang, crash, or lost (a fixture failed, so it never started)."""

    outcome: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Results:
    """What became of a module's tests, by test id. Ids are not always unique: one id passes if all its tests do."""

    module: str
    patched: bool
    tests: dict[str, Outcome] = field(default_factory=dict)
    unavailable: str | None = None  # why the module can't run at all
    seconds: float = 0.0
    sessions: int = 0  # KCP sessions that the last child counted: the proof that the tests ran over KCP

    def passed(self) -> set[str]:
        return {name for name, outcome in self.tests.items() if outcome.outcome == "pass"}


class _Child:
    """One process running tests, and what it has told so far."""

    def __init__(self, request: dict[str, Any], directory: str, limit: float) -> None:
        self._limit = limit
        self._buffer = b""
        self._log = Path(directory, "output")
        reading, writing = os.pipe()
        work = Path(directory, "work")
        work.mkdir()
        environment = dict(os.environ)
        paths = [str(_HERE.parent), *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment["TMPDIR"] = str(work)
        request = {**request, "report": writing}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{_HERE.name}.child", json.dumps(request)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=work,
                env=environment,
                pass_fds=[writing],
                start_new_session=True,
            )
        os.close(writing)
        self._reading = reading

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the child tells, until it ends. Raises TimeoutError when it says nothing for the limit."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            deadline = time.monotonic() + self._limit
            while True:
                # In slices: processes that a test forked may hold the pipe open after the child has gone.
                if selector.select(min(1.0, max(0.0, deadline - time.monotonic()))):
                    data = os.read(self._reading, 1 << 16)
                    if not data:
                        return
                    *lines, self._buffer = (self._buffer + data).split(b"\n")
                    for line in lines:
                        yield json.loads(line)
                    deadline = time.monotonic() + self._limit
                elif self._process.poll() is not None:
                    return
                elif time.monotonic() >= deadline:
                    raise TimeoutError

    def interrupt(self) -> None:
        """Makes a hung child write where its threads are, and ends it."""
        self._process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS)

    def end(self) -> int:
        """Ends the child and all that it started; its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        os.close(self._reading)
        return self._process.wait()

    def last_words(self) -> str:
        """The end of what the child wrote."""
        return self._log.read_bytes()[-6000:].decode(errors="replace")


class _Run:
    """A module's tests on the way: children one after the other, each going on where the last one stopped."""

    def __init__(self, package: str, module: str, patched: bool, limit: float, select: Callable[[str], bool]) -> None:
        self._request: dict[str, Any] = {"package": package, "module": module, "patched": patched}
        self._limit = limit
        self._select = select
        self._plan: list[str] | None = None
        self._wanted: list[int] | None = None
        self._ended: dict[int, Outcome] = {}
        self._broken: list[str] = []
        self.results = Results(module, patched)

    def finish(self) -> Results:
        began = time.monotonic()
        while self._one_child():
            pass
        for place in self._wanted or []:
            outcome = self._ended.get(place) or Outcome("lost", "\n".join(self._broken))
            self._record(self._plan[place] if self._plan else "", outcome)
        self.results.seconds = time.monotonic() - began
        return self.results

    def _record(self, name: str, outcome: Outcome) -> None:
        before = self.results.tests.get(name)
        if before is None or before.outcome in ("pass", "skip"):
            self.results.tests[name] = outcome

    def _one_child(self) -> bool:
        """Runs a child to its end; True when another must go on after it."""
        running: int | None = None
        started = time.monotonic()
        hung = done = False
        request = {**self._request, "only": self._wanted, "done": sorted(self._ended)}
        with tempfile.TemporaryDirectory(prefix="interpreter-suite-", ignore_cleanup_errors=True) as directory:
            child = _Child(request, directory, self._limit)
            try:
                for message in child.messages():
                    if "start" in message:
                        running, started = message["start"], time.monotonic()
                    elif "end" in message:
                        running = None
                        self._ended[message["end"]] = Outcome(
                            message["outcome"], message["detail"], time.monotonic() - started
                        )
                    elif "plan" in message:
                        if self._plan is None:
                            self._plan = message["plan"]
                            self._wanted = [place for place, name in enumerate(self._plan) if self._select(name)]
                            if len(self._wanted) < len(self._plan):
                                return bool(self._wanted)  # begin again, with those only
                    elif "broken" in message:
                        self._broken.append(message["broken"])
                    elif "unavailable" in message:
                        self.results.unavailable = message["unavailable"]
                        done = True
                    else:
                        self.results.sessions = message["sessions"]
                        done = True
            except TimeoutError:
                hung = True
                child.interrupt()
            finally:
                code = child.end()
            words = "" if done else child.last_words()
        if done:
            return False
        if running is not None:
            ending = "hang" if hung else "crash"
            self._ended[running] = Outcome(ending, f"exit code {code}\n{words}", time.monotonic() - started)
        elif self._plan is None:
            self.results.unavailable = f"did not load (exit code {code}):\n{words}"
            return False
        elif request["done"] == sorted(self._ended):  # in a fixture, and no test further than the last child came
            self._broken.append(f"exit code {code} between tests\n{words}")
            return False
        return True


def run_module(
    module: str,
    patched: bool,
    limit: float = LIMIT,
    select: Callable[[str], bool] = lambda name: True,
    package: str = "test",
) -> Results:
    """Runs the tests of ``<package>.<module>`` for whose id `select` is true; `limit` (s) is for each test."""
    return _Run(package, module, patched, limit, select).finish()

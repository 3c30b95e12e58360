"""A virtual environment with other people's programs, and their processes over KCP.

The packages come from the package registry, by name and version. kcpsocket is the one under test: a .pth file makes it
and its dependencies importable where they are.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

SCRIPTS = Path(__file__).parent / "programs"
PACKAGES = (
    "requests==2.34.2",
    "waitress==3.0.2",
    "Flask==3.1.3",
    "gunicorn==27.0.1",
    "aiohttp==3.14.5",
    "uvicorn==0.54.0",
    "httpx==0.28.1",
    "websockets==17.4; python_version >= '3.11'",
    "websockets==15.0.1; python_version < '3.11'",
    "paramiko==5.1.0",
    "pyftpdlib==2.2.0",
    "redis==8.1.0",
    "PyMySQL==1.2.4",
    "Twisted==26.10.0",
    "trio==0.35.0",
)
INSTALL_LIMIT = 240.0  # s
PATIENCE = 45.0  # s for anything that a program is to do; each takes a few seconds at most
_UNREACHABLE = re.compile(r"connection broken by|Could not fetch URL|name resolution|ConnectTimeout")


class RegistryUnreachableError(Exception):
    """The packages can't be had here; the message says why."""


class Environment:
    """The virtual environment, in `directory`. RegistryUnreachableError: it cannot be had here and now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._witness = directory / "witness"
        self._home = directory / "home"
        for part in (self._witness, self._home):
            part.mkdir()
        venv.create(directory / "venv", with_pip=False, symlinks=True)
        self.python = directory / "venv" / "bin" / "python"
        self._install()
        (self._site() / "kcpsocket_under_test.pth").write_text(
            "".join(f"{path}\n" for path in (SCRIPTS, *_under_test())) + "import witness\n"
        )

    def _install(self) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "--no-input"]
        options = ["--quiet", "--no-compile", "--prefer-binary", "--retries", "1", "--timeout", "20"]
        try:
            done = subprocess.run(
                [*pip, "install", *options, *PACKAGES],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=INSTALL_LIMIT,
            )
        except subprocess.TimeoutExpired:
            raise RegistryUnreachableError(f"the package registry took longer than {INSTALL_LIMIT:g} s") from None
        if "No module named pip" in done.stdout:
            raise RegistryUnreachableError(f"pip is not installed for {sys.executable}")
        if done.returncode and _UNREACHABLE.search(done.stdout):
            raise RegistryUnreachableError(f"the package registry can't be reached: {done.stdout.splitlines()[-1]}")
        assert done.returncode == 0, done.stdout

    def _site(self) -> Path:
        (site,) = (self.directory / "venv" / "lib").glob("python*/site-packages")
        return site

    def start(self, *arguments: str) -> Program:
        """`python -m kcpsocket run ARGUMENTS`, in the directory of the scripts."""
        mine = ("PYTHON", "KCPSOCKET", "GUNICORN", "FLASK")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        environment.update(
            KCPSOCKET_WITNESS=str(self._witness),
            HOME=str(self._home),  # gunicorn keeps something there
            PYTHONPYCACHEPREFIX=str(self.directory / "pycache"),  # not beside the sources under test
            PYTHONUNBUFFERED="1",
            PYTHONWARNINGS="ignore",
        )
        command = [str(self.python), "-m", "kcpsocket", "run", *arguments]
        return Program(command, environment, self._witness)

    def run(self, *arguments: str) -> Program:
        """A program run to its end, which must be a good one."""
        with self.start(*arguments) as program:
            assert program.wait() == 0, program.output
        return program


def _under_test() -> list[str]:
    """Where kcpsocket, its compiled module and what it depends on are imported from here."""
    modules = [importlib.import_module(name) for name in ("kcpsocket", "kcpsocket._native", "_cffi_backend")]
    modules += [importlib.import_module(name) for name in ("Crypto", "zfec")]
    places = {}
    for module in modules:
        assert module.__file__ is not None
        path = Path(module.__file__)
        levels = module.__name__.count(".") + (path.name == "__init__.py")
        places[str(path.absolute().parents[levels])] = None
    return list(places)


class Program:
    """A running program with what it says (`output`: both its streams); a context manager, which ends it and checks
    that neither it nor a child of its is left."""

    def __init__(self, command: list[str], environment: Mapping[str, str], witness: Path) -> None:
        self._witness = witness
        self._lines: collections.deque[str] = collections.deque()
        self._said = threading.Condition()
        self._ended = False
        before = signal.getsignal(signal.SIGINT)
        if before is signal.SIG_IGN:  # as in a shell's background job; the program shall be stoppable by it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._process = subprocess.Popen(
                command,
                cwd=SCRIPTS,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        finally:
            if before is signal.SIG_IGN:
                signal.signal(signal.SIGINT, before)
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All it has said."""
        with self._said:
            return "".join(self._lines)

    def expect(self, pattern: str) -> re.Match[str]:
        """Waits until the program has said something that matches."""
        found: list[re.Match[str]] = []

        def said() -> bool:
            match = re.search(pattern, "".join(self._lines))
            if match is not None:
                found.append(match)
            return match is not None or self._ended

        with self._said:
            self._said.wait_for(said, PATIENCE)
        assert found, f"never said {pattern!r}, but:\n{self.output}"
        return found[0]

    def say(self, line: str) -> None:
        """A line to the program's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        """Waits for its end; returns the exit code (negative: the signal that ended it)."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; it said:\n{self.output}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by a signal; returns the exit code."""
        self.signal(number)
        return self.wait()

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        """Sends a signal, to the process itself unless to another of its group."""
        assert pid is None or pid in _members(self.pid), f"not a process of this program: {pid}"
        os.kill(pid or self.pid, number)

    def tcp_sockets(self) -> list[str]:
        """The TCP sockets, as the kernel lists them, that it and its children hold now."""
        return _held(self.pid, "tcp")

    def udp_sockets(self) -> list[str]:
        """The UDP sockets that it and its children hold now."""
        return _held(self.pid, "udp")

    def report(self) -> Report:
        """What the witness in the process has written, after its end."""
        return Report(self._witness / f"{self.pid}.json")

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self._process.poll() is not None, f"not stopped; it said:\n{self.output}"
                left = [pid for pid in _members(self.pid) if not _ends(pid)]
                assert not left, f"children are left: {left}; it said:\n{self.output}"
        finally:
            for pid in _members(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join(PATIENCE)
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()


class Report:
    """What a process's sockets were."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        #: The process's KCP counters, as kcpsocket.snmp().
        self.counters: dict[str, int] = content["counters"]
        #: Each bind or connect of a TCP socket.
        self.tcp: list[str] = content["tcp"]


def _members(group: int) -> list[int]:
    """The processes of a process group, but for those that have ended."""
    members = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            # After the name, which may hold spaces: state, parent, group.
            state, _, its_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(its_group) == group and state not in "ZX":
            members.append(int(process.name))
    return members


def _ends(pid: int) -> bool:
    """Whether a process that is not our child ends in good time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def _held(group: int, protocol: str) -> list[str]:
    """The lines of /proc/net/PROTOCOL and its IPv6 twin for sockets of the process group's."""
    links = []
    for pid in _members(group):
        for descriptor in _listed(Path("/proc", str(pid), "fd")):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(descriptor))
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    tables = [Path("/proc/net", name) for name in (protocol, f"{protocol}6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [line for line in lines if line.split()[9] in inodes]


def _listed(directory: Path) -> list[Path]:
    """What is in a directory; nothing when it has gone."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []

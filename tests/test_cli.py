"""The command line: `run` does to a program what the interpreter does, only that its sockets are KCP's; and `demo`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

WAIT = 60.0  # s: nothing here takes nearly as long
RUN = ("-m", "kcpsocket", "run")


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the interpreter with these arguments to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


SEES = """
    import sys, __main__
    print(sys.argv, sys.path[0], __name__, __file__, __package__, __doc__, __spec__ and __spec__.name)
    print(type(__loader__).__name__, __main__.__dict__ is globals(), sorted(k for k in globals() if k[0] != "_"))
"""

SCRIPTS = {
    "sees": SEES,
    "exit_code": "import sys; sys.exit(3)",
    "exit_message": "import sys; sys.exit('no more')",
    "raises": """
        def inner():
            raise ValueError("from the program")
        def outer():
            try:
                inner()
            except ValueError as error:
                raise RuntimeError("on top") from error
        outer()
    """,
    "syntax_error": "x = = 1",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "outlived_by_a_thread": """
        import pickle, sys, threading
        class Thing:
            pass
        main_done = threading.Event()
        def later():
            threading.main_thread().join()
            print(type(pickle.loads(pickle.dumps(Thing()))).__module__)
        threading.Thread(target=later).start()
    """,
    "at_exit": "import atexit, sys; atexit.register(lambda: print(sys.modules['__main__'].__dict__ is globals()))",
    "own_hook": """
        import sys
        sys.excepthook = lambda kind, error, traceback: print("hook:", error)
        raise ValueError("caught by the hook")
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_runs_a_script_as_the_interpreter_does(tmp_path: Path, name: str) -> None:
    write(tmp_path / "scripts" / f"{name}.py", SCRIPTS[name])
    command = (os.path.join("scripts", f"{name}.py"), "one", "--key", "-m", "-h")
    expected = python(*command, cwd=tmp_path)
    got = python(*RUN, "--mode", "fast3", *command, cwd=tmp_path)
    assert (got.returncode, got.stdout, got.stderr) == (expected.returncode, expected.stdout, expected.stderr)


@pytest.mark.parametrize("name", ["module", "package", "package.inner", "raising", "missing", "package.missing"])
def test_runs_a_module_as_the_interpreter_does(tmp_path: Path, name: str) -> None:
    write(tmp_path / "module.py", SEES)
    write(tmp_path / "raising.py", "def f():\n    return 1 / 0\nf()")
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "__main__.py", SEES)
    write(tmp_path / "package" / "inner.py", SEES)
    command = ("-m", name, "one", "--mode", "-h")
    expected = python(*command, cwd=tmp_path)
    got = python(*RUN, "--mtu", "1200", *command, cwd=tmp_path)
    assert (got.returncode, got.stdout) == (expected.returncode, expected.stdout)
    # Only the last line: the interpreter shows its own first frames, those of runpy, too.
    assert got.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_a_traceback_shows_nothing_of_how_a_module_was_started(tmp_path: Path) -> None:
    write(tmp_path / "raising.py", "def f():\n    return 1 / 0\nf()")
    got = python(*RUN, "-m", "raising", cwd=tmp_path)
    assert "kcpsocket" not in got.stderr
    assert "runpy" not in got.stderr
    assert got.stderr.count("  File ") == 2


def test_runs_a_directory_with_a_main(tmp_path: Path) -> None:
    write(tmp_path / "application" / "__main__.py", "import beside, sys; print(beside.value, sys.argv)")
    write(tmp_path / "application" / "beside.py", "value = 7")
    expected = python("application", "one", cwd=tmp_path)
    got = python(*RUN, "application", "one", cwd=tmp_path)
    assert (got.returncode, got.stdout) == (expected.returncode, expected.stdout) == (0, "7 ['application', 'one']\n")


def test_a_script_that_is_not_there_is_an_error_in_the_interpreters_words(tmp_path: Path) -> None:
    expected = python("nothing.py", cwd=tmp_path)
    got = python(*RUN, "nothing.py", cwd=tmp_path)
    assert (got.returncode, got.stderr) == (expected.returncode, expected.stderr)


SETTINGS = """
    import kcpsocket, socket
    assert issubclass(socket.socket, kcpsocket.KCPSocket)
    config = socket.socket.config
    print(config.key, config.crypt, config.mtu, config.sndwnd, config.interval)
"""


def test_options_reach_the_programs_sockets(tmp_path: Path) -> None:
    write(tmp_path / "settings.py", SETTINGS)
    options = ("--crypt", "none", "--key", "secret", "--mtu", "1200", "--sndwnd", "77", "--interval", "15")
    got = python(*RUN, *options, "settings.py", cwd=tmp_path)
    assert (got.stdout, got.stderr) == ("secret none 1200 77 15\n", "")


@pytest.mark.parametrize(("options", "limited"), [((), True), (("--bdp-limit",), True), (("--no-bdp-limit",), False)])
def test_the_limit_of_packets_in_flight_is_an_option(
    tmp_path: Path, options: tuple[str, ...], limited: bool
) -> None:
    write(tmp_path / "settings.py", "import socket; print(socket.socket.config.bdp_limit)")
    assert python(*RUN, *options, "settings.py", cwd=tmp_path).stdout == f"{limited}\n"


def test_a_file_gives_settings_and_options_go_before_them(tmp_path: Path) -> None:
    write(tmp_path / "settings.py", SETTINGS)
    write(tmp_path / "kcp.json", '{"crypt": "none", "key": "of the file", "mtu": 1200, "sndwnd": 88, "mode": "fast3"}')
    got = python(*RUN, "--config", "kcp.json", "--mtu", "1300", "settings.py", cwd=tmp_path)
    assert (got.stdout, got.stderr) == ("of the file none 1300 88 10\n", "")


def test_a_mode_given_goes_before_the_files(tmp_path: Path) -> None:
    write(tmp_path / "settings.py", SETTINGS)
    write(tmp_path / "kcp.json", '{"crypt": "none", "key": "k", "mode": "fast3"}')
    got = python(*RUN, "--config", "kcp.json", "--mode", "normal", "settings.py", cwd=tmp_path)
    assert (got.stdout.split()[-1], got.stderr) == ("40", "")


def test_the_environment_can_hold_the_key_and_an_option_goes_before_it(tmp_path: Path) -> None:
    write(tmp_path / "settings.py", SETTINGS)
    got = python(*RUN, "--crypt", "none", "settings.py", cwd=tmp_path, KCPSOCKET_KEY="of the environment")
    assert got.stdout.startswith("of the environment none")
    got = python(*RUN, "--crypt", "none", "--key", "x", "settings.py", cwd=tmp_path, KCPSOCKET_KEY="of the environment")
    assert got.stdout.startswith("x none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mtu", "9", "x.py"), "mtu"),
        (("--mode", "faster", "x.py"), "mode"),
        (("--config", "nothing.json", "x.py"), "nothing.json"),
        (("--unheard-of", "x.py"), "--unheard-of"),
        (("--mt", "1200", "x.py"), "--mt"),
        ((), "no program"),
        (("-m",), "-m needs the name of a module"),
    ],
)
def test_a_mistake_in_the_options_is_told_and_nothing_runs(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    write(tmp_path / "x.py", "print('ran')")
    got = python(*RUN, *arguments, cwd=tmp_path)
    assert (got.returncode, got.stdout) == (2, "")
    assert says in got.stderr.splitlines()[-1]


def test_without_a_command_says_what_there_is(tmp_path: Path) -> None:
    got = python("-m", "kcpsocket", cwd=tmp_path)
    assert got.returncode == 0
    assert "run " in got.stdout
    assert "demo " in got.stdout


def test_version(tmp_path: Path) -> None:
    got = python("-m", "kcpsocket", "--version", cwd=tmp_path)
    assert got.returncode == 0
    assert got.stdout.startswith("kcpsocket ")


SERVER = """
    import socketserver
    class Shout(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Shout) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
"""

CLIENT = """
    import socket, sys
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as connection:
        connection.sendall(b"hello\\n")
        with connection.makefile("rb") as answers:
            print(answers.readline())
"""


@contextlib.contextmanager
def serving(directory: Path, *options: str) -> Iterator[int]:
    """Runs SERVER under `run` while the block runs; gives its port."""
    script = write(directory / "server.py", SERVER)
    command = [sys.executable, *RUN, *options, str(script)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_a_server_and_a_client_that_know_nothing_talk_kcp(tmp_path: Path) -> None:
    client = write(tmp_path / "client.py", CLIENT)
    with serving(tmp_path, "--mode", "fast3") as port:
        got = python(*RUN, "--mode", "fast", str(client), str(port), cwd=tmp_path)
        assert (got.stdout, got.stderr) == ("b'HELLO\\n'\n", "")
        with pytest.raises(ConnectionRefusedError):  # there is no TCP behind that port
            socket.create_connection(("127.0.0.1", port), timeout=WAIT).close()


def test_demo_fetches_a_file_whole_and_explains(tmp_path: Path) -> None:
    got = python(
        "-m", "kcpsocket", "demo", "--size", "2", "--loss", "5", "--delay", "5", "--seed", "1",
        cwd=tmp_path, http_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    assert got.returncode == 0, got.stdout + got.stderr
    assert "2 MB arrived" in got.stdout
    assert "the same" in got.stdout
    assert "round trip" in got.stdout
    assert "100% of 2 MB" in got.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--loss", "100"), ("--size", "0"), ("--delay", "soon")])
def test_demo_refuses_what_makes_no_sense(tmp_path: Path, arguments: tuple[str, str]) -> None:
    got = python("-m", "kcpsocket", "demo", *arguments, cwd=tmp_path)
    assert got.returncode == 2
    assert arguments[0] in got.stderr

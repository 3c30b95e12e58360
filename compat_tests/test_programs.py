"""Other people's programs, unmodified, with both ends over KCP: real data both ways, and not a TCP socket."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from environment import Environment, Program, RegistryUnreachableError

pytestmark = pytest.mark.timeout(400)  # s: the first test's time includes installing the packages

LISTENING = r"listening on (\d+)"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment with the packages, built once a session."""
    try:
        return Environment(tmp_path_factory.mktemp("programs"))
    except RegistryUnreachableError as error:
        pytest.skip(str(error))


def port_of(server: Program, pattern: str = LISTENING) -> str:
    """The port of a server that is ready: a UDP port, and no TCP socket anywhere."""
    port = server.expect(pattern)[1]
    local = [line.split()[1] for line in server.udp_sockets()]
    assert any(address.endswith(f":{int(port):04X}") for address in local), (port, local)
    assert server.tcp_sockets() == []
    return port


def assert_over_kcp(server: Program, client: Program, to_server: int, to_client: int) -> None:
    """After their end: both used KCP and no TCP socket, and moved at least so many bytes of payload each way."""
    near, far = client.report(), server.report()
    assert near.tcp == []
    assert far.tcp == []
    assert near.counters["ActiveOpens"] > 0
    assert far.counters["PassiveOpens"] > 0
    assert near.counters["BytesSent"] >= to_server
    assert near.counters["BytesReceived"] >= to_client
    assert far.counters["BytesReceived"] >= to_server
    assert far.counters["BytesSent"] >= to_client


@pytest.mark.parametrize(
    ("command", "ready"),
    [
        (["-m", "waitress", "--listen=127.0.0.1:0", "wsgi_app:application"], r"Serving on http://127.0.0.1:(\d+)"),
        (["wsgiref_server.py"], LISTENING),
    ],
    ids=["waitress", "wsgiref"],
)
def test_requests_and_a_wsgi_server(programs: Environment, command: list[str], ready: str) -> None:
    with programs.start(*command) as server:
        client = programs.run("requests_client.py", f"http://127.0.0.1:{port_of(server, ready)}")
        assert json.loads(client.output) == {"pids": [server.pid]}
        assert server.tcp_sockets() == []
        assert server.stop(signal.SIGINT) == 0, server.output
    assert_over_kcp(server, client, to_server=3_000_000, to_client=4_000_000)


def test_flask_and_requests(programs: Environment) -> None:
    with programs.start("-m", "flask", "--app", "flask_app", "run", "--port", "0") as server:
        port = port_of(server, r"Running on http://127.0.0.1:(\d+)")
        client = programs.run("flask_client.py", f"http://127.0.0.1:{port}")
        assert server.stop(signal.SIGINT) == 0, server.output
    assert_over_kcp(server, client, to_server=1_500_000, to_client=100_000)


GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--graceful-timeout", "30")
GUNICORN_LISTENS = r"Listening at: http://127.0.0.1:(\d+)"
WORKERS = {"sync": ["--workers", "3"], "gthread": ["--workers", "2", "--threads", "4", "--worker-class", "gthread"]}


def booted(server: Program, workers: int) -> None:
    """Waits until so many workers have been started."""
    server.expect(r"(?s)" + r".*Booting worker with pid" * workers)


@pytest.mark.parametrize("kind", WORKERS)
def test_gunicorn_serves_from_forked_workers(programs: Environment, kind: str) -> None:
    workers = int(WORKERS[kind][1])
    with programs.start(*GUNICORN, *WORKERS[kind], "wsgi_app:application") as server:
        port = port_of(server, GUNICORN_LISTENS)
        booted(server, workers)
        client = programs.run("requests_client.py", f"http://127.0.0.1:{port}")
        pids = json.loads(client.output)["pids"]
        assert server.pid not in pids
        assert 1 <= len(pids) <= workers
        assert server.tcp_sockets() == []
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=3_000_000, to_client=4_000_000)


@pytest.mark.parametrize("kind", WORKERS)
def test_gunicorn_finishes_a_request_that_a_graceful_stop_meets(programs: Environment, kind: str) -> None:
    with programs.start(*GUNICORN, *WORKERS[kind], "wsgi_app:application") as server:
        port = port_of(server, GUNICORN_LISTENS)
        with programs.start("interrupted_upload.py", "127.0.0.1", port) as client:
            client.expect("half is sent")
            server.expect("upload begun")
            server.signal(signal.SIGTERM)
            server.expect("Handling signal: term")
            client.say("go on")
            assert client.wait() == 0, client.output + server.output
        assert server.wait() == 0, server.output
    assert_over_kcp(server, client, to_server=600_000, to_client=50)


def test_gunicorn_replaces_its_workers_on_reload_and_when_one_is_killed(programs: Environment) -> None:
    with programs.start(*GUNICORN, "--workers", "1", "wsgi_app:application") as server:
        port = port_of(server, GUNICORN_LISTENS)
        seen: set[int] = set()
        for number, end in enumerate((signal.SIGHUP, signal.SIGKILL, None), start=1):
            booted(server, number)
            client = programs.run("requests_client.py", f"http://127.0.0.1:{port}")
            (pid,) = json.loads(client.output)["pids"]
            assert pid not in seen
            seen.add(pid)
            if end is signal.SIGHUP:
                server.signal(end)
            elif end is signal.SIGKILL:
                server.signal(end, pid)
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=3_000_000, to_client=4_000_000)


def test_uvicorn_hands_its_listening_socket_to_spawned_workers(programs: Environment) -> None:
    command = ["-m", "uvicorn", "--port", "0", "--workers", "2", "--loop", "asyncio", "asgi_app:application"]
    with programs.start(*command) as server:
        port = port_of(server, r"running on http://127.0.0.1:(\d+)")
        server.expect(r"(?s)" + ".*startup complete" * 2)
        client = programs.run("httpx_client.py", f"http://127.0.0.1:{port}")
        pids = json.loads(client.output)["pids"]
        assert server.pid not in pids
        assert 1 <= len(pids) <= 2
        assert server.tcp_sockets() == []
        assert server.stop() == 0, server.output
    assert client.report().tcp == server.report().tcp == []
    assert client.report().counters["ActiveOpens"] > 0
    assert client.report().counters["BytesReceived"] >= 3_000_000


def test_paramiko_runs_a_command_and_moves_files(programs: Environment, tmp_path: Path) -> None:
    with programs.start("ssh_server.py", str(tmp_path)) as server:
        port = port_of(server)
        client = programs.run("ssh_client.py", "127.0.0.1", port, server.expect(r"key (\S+)\n")[1])
        assert "done" in client.output
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=1_300_000, to_client=1_300_000)


@pytest.mark.parametrize("kind", ["alone", "threads", "processes", "prefork"])
def test_ftp_with_data_connections_from_either_side(programs: Environment, tmp_path: Path, kind: str) -> None:
    alone = ["-m", "pyftpdlib", "-i", "127.0.0.1", "-p", "0", "-w", "-d", str(tmp_path)]
    with programs.start(*(alone if kind == "alone" else ["ftp_server.py", kind, str(tmp_path)])) as server:
        client = programs.run("ftp_client.py", "127.0.0.1", port_of(server, r"(?:127\.0\.0\.1:|listening on )(\d+)"))
        assert "done" in client.output
        assert server.tcp_sockets() == []
        if kind == "prefork":  # its master waits until they end
            server.expect(r"(?s)" + r".*starting FTP server.*pid=" * 2)
            for pid in re.findall(r"pid=(\d+)", server.output):
                server.signal(signal.SIGINT, int(pid))
        else:
            server.signal(signal.SIGINT)
        assert server.wait() == 0, server.output
    near, far = client.report(), server.report()
    assert near.tcp == []
    assert far.tcp == []
    assert far.counters["PassiveOpens"] >= 2  # the control connections; others may be a child's
    assert near.counters["ActiveOpens"] > 2
    assert near.counters["PassiveOpens"] > 2  # the data connections that the server opened
    assert near.counters["BytesSent"] >= 2_000_000
    assert near.counters["BytesReceived"] >= 3_000_000


def test_websockets_server_and_clients(programs: Environment) -> None:
    with programs.start("websockets_server.py") as server:
        client = programs.run("websockets_client.py", f"ws://127.0.0.1:{port_of(server)}")
        assert "done" in client.output
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=5_000_000, to_client=5_000_000)


def test_aiohttp_server_and_client(programs: Environment) -> None:
    with programs.start("aiohttp_server.py") as server:
        client = programs.run("aiohttp_client.py", f"http://127.0.0.1:{port_of(server)}")
        assert "done" in client.output
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=2_500_000, to_client=300_000)


def test_redis_client(programs: Environment) -> None:
    with programs.start("redis_server.py") as server:
        client = programs.run("redis_client.py", "127.0.0.1", port_of(server))
        assert "done" in client.output
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=1_100_000, to_client=1_100_000)


def test_mysql_client(programs: Environment) -> None:
    with programs.start("mysql_server.py") as server:
        client = programs.run("mysql_client.py", "127.0.0.1", port_of(server))
        assert "done" in client.output
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=1_000_000, to_client=2_000_000)


def test_twisted_server_and_clients_on_epoll(programs: Environment) -> None:
    with programs.start("twisted_server.py") as server:
        client = programs.run("twisted_client.py", "127.0.0.1", port_of(server))
        assert "done" in client.output
        assert server.stop() == 0, server.output
    assert_over_kcp(server, client, to_server=1_500_000, to_client=1_500_000)


def test_trio_server_and_clients(programs: Environment) -> None:
    program = programs.run("trio_program.py")
    assert "done" in program.output
    assert_over_kcp(program, program, to_server=8_000_000, to_client=8_000_000)


def test_a_tcp_socket_would_be_seen(programs: Environment) -> None:
    with programs.start("tcp_program.py") as program:
        port = program.expect(LISTENING)[1]
        assert any(f":{int(port):04X}" in line for line in program.tcp_sockets())
        assert program.udp_sockets() == []
        program.say("")
        assert program.wait() == 0, program.output
    report = program.report()
    assert report.tcp == ["socket.bind ('127.0.0.1', 0)", f"socket.connect ('127.0.0.1', {port})"]
    assert report.counters["ActiveOpens"] == 0

"""`python -m kcpsocket bench`: the workers, the table and the commands, on loopback and for a moment each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kcpsocket import __main__ as cli
from kcpsocket.bench import codecs, iperf, local, netns, orders, stats, table, wan, wan_report
from kcpsocket.bench.process import BenchError, Process, Python, go_settings
from kcpsocket.bench.settings import settings_from
from kcpsocket.bench.transport import Transport

KCP = Transport("kcp", {"mode": "fast3"})
TCP = Transport("tcp")
LIMIT = 30.0  # s for anything that a worker is asked for


def options_of(*arguments: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    iperf.add_client_arguments(parser)
    return parser.parse_args(["host", *arguments])


# --- figures ---


def test_percentiles_are_samples_that_were_seen() -> None:
    samples = [float(value) for value in range(100, 0, -1)]
    assert [stats.percentile(samples, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert stats.median([3.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="no samples"):
        stats.median([])


def test_memory_and_cpu_of_a_process_are_found() -> None:
    assert stats.process_memory(os.getpid()) > 1 << 20
    assert stats.kernel_memory() > 1 << 20
    assert stats.cpu_seconds() > 0


def test_orders_come_back_as_they_were_given() -> None:
    data = orders.order("stamps", 500, 1024)
    assert len(data) == orders.LENGTH
    assert orders.parse(data) == ("stamps", [500, 1024])
    with pytest.raises(ValueError, match="too long"):
        orders.order("sink", 10**30)


def test_tables_line_up() -> None:
    assert table.table(["what", "n"], [["a", "1,000"], ["long name", "2"]]) == [
        "| what      |     n |",
        "| --------- | ----: |",
        "| a         | 1,000 |",
        "| long name |     2 |",
    ]


def test_a_ratio_says_how_many_times_better_ours_is() -> None:
    assert local.Row("bulk", "MB/s", {"kcpsocket": 800.0, "kcp-go": 100.0}, True).ratio() == 8.0
    assert local.Row("echo", "us", {"kcpsocket": 50.0, "kcp-go": 100.0}, False).ratio() == 2.0
    assert local.Row("echo", "us", {"kcpsocket": "failed", "kcp-go": 100.0}, False).ratio() is None


# --- settings ---


def test_settings_of_the_command_line_become_fields_of_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KCPSOCKET_KEY", raising=False)
    assert settings_from(options_of("--mode", "fast3", "--sndwnd", "64")) == {"mode": "fast3", "sndwnd": 64}
    with pytest.raises(ValueError, match="sndwnd: 0 given"):
        settings_from(options_of("--sndwnd", "0"))


def test_settings_of_a_file_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCPSOCKET_KEY", "from the environment")
    file = tmp_path / "kcptun.json"
    file.write_text(json.dumps({"key": "from the file", "crypt": "none", "mode": "normal", "mtu": 1350}))
    given = settings_from(options_of("--config", str(file), "--mode", "fast3"))
    assert (given["key"], given["mtu"], given["mode"]) == ("from the environment", 1350, "fast3")
    assert "interval" not in given


def test_kcp_go_gets_the_mode_spelled_out() -> None:
    given = go_settings({"mode": "normal", "sndwnd": 64})
    assert (given["nodelay"], given["interval"], given["resend"], given["nc"], given["sndwnd"]) == (0, 40, 2, 1, 64)


# --- workers ---


def result_of(transport: Transport, specification: dict[str, Any], key: str, style: str = "threads") -> dict[str, Any]:
    side = Python(transport.kind, transport)
    with (
        side.server(style=style, size=64) as (_, port),
        side.worker({"host": "127.0.0.1", "port": port, **specification}) as client,
    ):
        return client.result(key, LIMIT)


@pytest.mark.parametrize("transport", [KCP, TCP], ids=lambda transport: transport.kind)
@pytest.mark.parametrize("reverse", [False, True])
def test_bulk_moves_all(transport: Transport, reverse: bool) -> None:
    result = result_of(transport, {"role": "bulk", "bytes": 3_000_001, "reverse": reverse}, "seconds")
    assert result["seconds"] > 0
    assert result["cpu"] > 0


def test_echo_tells_times_and_the_state_of_the_connection() -> None:
    result = result_of(KCP, {"role": "echo", "size": 3000, "count": 20}, "median")
    assert 0 < result["median"] <= result["p99"]
    assert result["info"]["bytes_received"] >= 20 * 3000


def test_connects_one_after_another() -> None:
    result = result_of(KCP, {"role": "connects", "size": 64, "count": 20}, "errors", style="serial")
    assert result["errors"] == 0


def test_load_on_many_connections_loses_nothing() -> None:
    side = Python("kcp", KCP)
    specification = {"role": "load", "connections": 30, "size": 1024, "rate": 10, "seconds": 0.5}
    with (
        side.server(style="many") as (server, port),
        side.worker({"host": "127.0.0.1", "port": port, **specification}) as client,
    ):
        assert client.result("ready", LIMIT) == {"ready": 30}
        client.tell("go")
        result = client.result("messages", LIMIT)
        assert (result["messages"], result["errors"], result["refused"], result["missing"]) == (150, 0, 0, 0)
        assert server.cpu() > 0


@contextmanager
def poured(count: int, seconds: float) -> Iterator[tuple[Process, Process]]:
    side = Python("kcp", KCP)
    specification = {"role": "pour", "bytes": count, "seconds": seconds}
    with (
        side.server() as (server, port),
        side.worker({"host": "127.0.0.1", "port": port, **specification}) as client,
    ):
        yield server, client


def test_pour_ends_with_its_bytes() -> None:
    with poured(2_000_000, LIMIT) as (server, client):
        got = server.result("drained", LIMIT)
        assert got["drained"] == sum(got["tenths"]) == 2_000_000
        assert "error" not in client.result("poured", LIMIT)


def test_pour_ends_with_its_time() -> None:
    with poured(0, 0.3) as (server, _):
        assert server.result("drained", LIMIT)["drained"] > 0


def test_stamped_messages_tell_their_latency() -> None:
    side = Python("kcp", KCP)
    specification = {"role": "stamps", "count": 20, "size": 1024, "every": 0.005}
    with (
        side.server() as (server, port),
        side.worker({"host": "127.0.0.1", "port": port, **specification}) as client,
    ):
        latencies = server.result("latencies", LIMIT)["latencies"]
        assert len(latencies) == 20
        assert min(latencies) > 0
        client.result("stamped", LIMIT)


def test_a_worker_that_cannot_start_says_why() -> None:
    side = Python("kcp", Transport("kcp", {"mtu": 1}))
    with pytest.raises(BenchError, match="mtu: 1 given"), side.server():
        pass


def test_a_worker_that_dies_is_noticed() -> None:
    with (
        pytest.raises(BenchError, match="Expecting value"),
        Process("broken", [sys.executable, "-m", "kcpsocket.bench.worker", "no JSON"]) as process,
    ):
        process.result("anything", LIMIT)


# --- server and client ---


@pytest.mark.parametrize("transport", [KCP, TCP], ids=lambda transport: transport.kind)
@pytest.mark.parametrize("reverse", [False, True])
def test_both_ends_of_a_test_agree(transport: Transport, reverse: bool) -> None:
    served: list[dict[str, Any]] = []
    with transport.listen(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            control, _ = listener.accept()
            with control:
                served.append(iperf.serve_test(listener, control))

        thread = threading.Thread(target=serve)
        thread.start()
        seen: list[int] = []
        result = iperf.run_test(
            transport,
            listener.getsockname(),
            1.1,
            64 << 10,
            reverse,
            lambda seconds, count, state: seen.append(count),
        )
        thread.join(LIMIT)
    assert result["sender"]["bytes"] == result["receiver"]["bytes"] > 0
    assert served[0]["bytes"] == result["sender"]["bytes"]
    assert served[0]["reverse"] is reverse
    assert seen  # a report each second
    assert sum(seen) <= result["sender"]["bytes"]
    for end in result.values():
        assert {"seconds", "cpu", "rtt", "retransmitted"} <= set(end)


@pytest.mark.parametrize(
    "request_line",
    [b"[]", b"{}", b"not JSON", b'{"cookie": "00", "seconds": 1, "size": 1, "reverse": false}'],
)
def test_a_server_refuses_nonsense(request_line: bytes) -> None:
    near, far = socket.socketpair()
    with near, far, TCP.listen(("127.0.0.1", 0)) as listener:
        near.sendall(request_line + b"\n")
        with pytest.raises(ValueError, match=r"request|object|Expecting"):
            iperf.serve_test(listener, far)


def test_server_and_client_as_commands() -> None:
    command = [sys.executable, "-m", "kcpsocket", "bench"]
    with subprocess.Popen(
        [*command, "server", "--host", "127.0.0.1", "--port", "0", "--once"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            port = server.stderr.readline().split(" port ")[1].split()[0]
            done = subprocess.run(
                [*command, "client", "127.0.0.1", "--port", port, "--time", "0.2", "--json"],
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=True,
            )
            said, _ = server.communicate(timeout=LIMIT)
        except BaseException:
            server.kill()
            raise
    result = json.loads(done.stdout)
    assert result["sender"]["bytes"] == result["receiver"]["bytes"] > 0
    assert f"received {result['sender']['bytes']:,} bytes" in said
    assert server.returncode == 0


def test_a_client_without_a_server_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert cli.main(["bench", "client", "127.0.0.1", "--port", str(port)]) == 1
    assert "refused" in capsys.readouterr().err


# --- ciphers and erasure code ---


def test_every_kernel_and_cipher_has_a_speed() -> None:
    assert all(speed > 0 for speed in codecs.cipher_speed("tea").values())
    assert all(speed > 0 for speed in codecs.erasure_speed(3, 2).values())


# --- the network ---


def wan_rows() -> list[dict[str, Any]]:
    rows = []
    for side, goodput, p99 in (
        ("kcpsocket fast2", 15.0, 200.0),
        ("TCP cubic", 0.5, 1000.0),
        ("kcp-go fast2", 20.0, 9.0),
    ):
        rows.append(
            {
                "link": "5 % loss, 100 ms",
                "side": side,
                "bulk": {"goodput": goodput, "wire": 2.0, "wire_back": 0.1},
                "messages": {"p50": 50.0, "p99": p99, "max": float("inf"), "wire": 1.1},
            }
        )
    return rows


def test_the_report_of_a_wan_measures_itself_by_the_goals(tmp_path: Path) -> None:
    report = {
        "machine": {"processor": "1 x test"},
        "plan": {"bulk": 1e6, "bulk_limit": 1, "messages": 10},
        "links": {"5 % loss, 100 ms": {"loss": 0.05, "rtt": 100, "burst_begin": 0, "rate": 20}},
        "results": [
            *wan_rows(),
            {"link": "5 % loss, 100 ms", "side": "x", "bulk": {"failed": "y"}, "messages": {"failed": "z"}},
        ],
    }
    text = wan_report.markdown(report)
    assert "p99 latency 0.20 of TCP's" in text
    assert "goodput 30.0 times TCP's" in text
    assert "kcpsocket fast2 puts 2.00 bytes on the wire" in text
    assert "kcpsocket fast2 below kcp-go fast2 in goodput: 15.0 to 20.0" in text
    assert "never" in text  # a message that did not arrive
    source = tmp_path / "wan.json"
    source.write_text(json.dumps(report))
    assert cli.main(["bench", "wan", "--from", str(source), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "wan.md").read_text() == text


def test_links_have_names_and_the_phone_loses_some_five_percent() -> None:
    links = wan.all_links()
    assert set(wan.QUICK_LINKS) <= set(links)
    assert len(links) == 16
    assert links["phone, 80 ms"].mean_loss() == pytest.approx(0.05, abs=0.01)


def test_two_namespaces_carry_bulk_and_messages_over_a_link() -> None:
    reason = netns.missing()
    if reason is not None:
        pytest.skip(f"bench wan {reason}")
    before = set(os.listdir("/sys/class/net"))
    plan = wan.Plan(bulk=200_000, bulk_limit=10.0, messages=20, fairness=0.0)
    link = wan.Link(rtt=20, loss=0.05)
    (row,) = wan.measure_link("test", link, [Python("kcpsocket fast3", KCP)], plan, False, lambda text: None)
    assert row["bulk"]["complete"], row["bulk"]
    assert row["bulk"]["wire"] > 1
    assert row["messages"]["missing"] == 0, row["messages"]
    assert row["messages"]["p50"] >= 10  # half a round trip
    assert set(os.listdir("/sys/class/net")) == before


def test_without_root_the_network_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in str(netns.missing())
    assert cli.main(["bench", "wan"]) == 1

"""``bench local``: what kcpsocket does on this machine, with kcp-go and TCP beside it in the same run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import stats
from .process import BenchError, KcpGo, Python, Side, build_peer, go_settings
from .table import table
from .transport import Transport

_HOST: Final = "127.0.0.1"
_LIMIT: Final = 180.0  # s that one measurement may take
_MODE: Final = "fast3"
_KEY: Final = "kcpsocket bench"
_CONNECTIONS: Final = 5_000  # of one client process: descriptors are limited
_MESSAGES: Final = 20_000  # a second, in all, for the cost of one among many connections
_CIPHERED: Final[dict[str, dict[str, Any]]] = {
    "null": {},
    "aes": {"crypt": "aes", "key": _KEY},
    "aes + FEC 10/3": {"crypt": "aes", "key": _KEY, "datashard": 10, "parityshard": 3},
}

Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A line of the table: one figure of one piece of work, for everyone who did it."""

    work: str
    unit: str
    figures: dict[str, float | str]  # by side; a text where there is no figure
    more_is_better: bool
    goal: str = ""

    def ratio(self) -> float | None:
        """How many times better kcpsocket is than kcp-go."""
        ours, theirs = self.figures.get("kcpsocket"), self.figures.get("kcp-go")
        if not isinstance(ours, float) or not isinstance(theirs, float) or not ours or not theirs:
            return None
        return ours / theirs if self.more_is_better else theirs / ours


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    megabytes: dict[str, int]  # of a bulk transfer, by side
    echoes: int
    connections: int
    idle: float  # s
    load: float  # s
    connects: int
    windows: tuple[int, ...]  # packets
    sessions: tuple[int, ...]


FULL: Final = Plan(
    rounds=5,
    megabytes={"kcpsocket": 1000, "kcp-go": 300, "TCP": 2000},
    echoes=5000,
    connections=5000,
    idle=20.0,
    load=10.0,
    connects=3000,
    windows=(32, 256, 1024, 8192, 32768),
    sessions=(1, 10, 100, 1000, 9000),
)
QUICK: Final = Plan(
    rounds=1,
    megabytes={"kcpsocket": 400, "kcp-go": 100, "TCP": 800},
    echoes=1000,
    connections=500,
    idle=5.0,
    load=3.0,
    connects=500,
    windows=(32, 1024, 32768),
    sessions=(1, 100, 1000),
)


class Bench:
    """The run: who takes part, and how what they do is measured."""

    def __init__(self, plan: Plan, peer: Path | None, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._peer = peer
        self._tell = tell

    def sides(self, settings: dict[str, Any], tcp: bool) -> list[Side]:
        """kcpsocket, kcp-go and TCP, as far as they take part."""
        merged = {"mode": _MODE, **settings}
        found: list[Side] = [Python("kcpsocket", Transport("kcp", merged))]
        if self._peer is not None:
            found.append(KcpGo("kcp-go", self._peer, go_settings(merged)))
        if tcp:
            found.append(Python("TCP", Transport("tcp")))
        return found

    def _rounds(
        self, name: str, sides: list[Side], measure: Callable[[Side], Figures]
    ) -> dict[str, dict[str, float | str]]:
        """Measures the sides in turn, round after round: medians by figure and side."""
        seen: dict[str, list[Figures]] = {side.name: [] for side in sides}
        failed: dict[str, str] = {}
        for number in range(self._plan.rounds):
            for side in sides:
                if side.name in failed:
                    continue
                try:
                    figures = measure(side)
                except BenchError as error:
                    failed[side.name] = str(error)
                    self._tell(f"{name}, {error}")
                    continue
                seen[side.name].append(figures)
                text = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
                self._tell(f"{name}, round {number + 1}, {side.name}: {text}")
        result: dict[str, dict[str, float | str]] = {}
        for side_name, rounds in seen.items():
            for key in rounds[0] if rounds else ():
                result.setdefault(key, {})[side_name] = stats.median([figures[key] for figures in rounds])
        for side_name in failed:
            for figures_by_side in result.values():
                figures_by_side[side_name] = "failed"
        return result

    def _client(self, side: Side, specification: dict[str, Any], **server: Any) -> Figures:
        """Runs a client in a role against a server of the same side; "cpu" counts both processes."""
        with side.server(_HOST, **server) as (process, port):
            before = process.cpu()
            with side.worker({"host": _HOST, "port": port, **specification}) as client:
                result = client.result("cpu", _LIMIT)
                cpu = process.cpu() - before + result["cpu"]
        kept = ("seconds", "median", "p99", "errors")
        return {**{name: float(result[name]) for name in kept if name in result}, "cpu": cpu}

    def _bulk(self, side: Side) -> Figures:
        count = self._plan.megabytes[side.name] * 1_000_000
        figures = self._client(side, {"role": "bulk", "bytes": count, "size": 64 << 10})
        return {"MB/s": count / 1e6 / figures["seconds"], "ns/byte": figures["cpu"] * 1e9 / count}

    def bulk(self) -> list[Row]:
        """Throughput and CPU."""
        rows = []
        goals = {"null": "8 x", "aes": "6 x", "aes + FEC 10/3": "4 x"}
        for name, settings in _CIPHERED.items():
            found = self._rounds(f"bulk, {name}", self.sides(settings, tcp=not settings), self._bulk)
            rows.append(Row(f"bulk, {name}", "MB/s", found.get("MB/s", {}), True, goals[name]))
            rows.append(Row(f"CPU, both processes: bulk, {name}", "ns/byte", found.get("ns/byte", {}), False, "3 x"))
        return rows

    def echo(self) -> list[Row]:
        """Round trips, one at a time."""
        rows = []
        for label, size, share, goal in (("64 B", 64, 1, "1 x"), ("64 KB", 64 << 10, 5, "3 x")):
            specification = {"role": "echo", "size": size, "count": self._plan.echoes // share}
            found = self._rounds(
                f"echo, {label}",
                self.sides({}, tcp=True),
                lambda side, specification=specification: self._client(side, specification),  # type: ignore[misc]
            )
            rows.append(Row(f"echo, {label}, median", "us", found.get("median", {}), False, goal))
            rows.append(Row(f"echo, {label}, p99", "us", found.get("p99", {}), False))
        return rows

    def connects(self) -> list[Row]:
        """Connect, one request, close, one after another."""
        specification = {"role": "connects", "size": 64, "count": self._plan.connects}

        def measure(side: Side) -> Figures:
            figures = self._client(side, specification, style="serial", size=64)
            return {
                "rate": self._plan.connects / figures["seconds"],
                "errors": figures["errors"],
                "us": figures["cpu"] * 1e6 / self._plan.connects,
            }

        found = self._rounds("connect, request, close", self.sides({}, tcp=True), measure)
        return [
            Row("connect, 64 B request, close", "per s", found.get("rate", {}), True, "5,000 a second"),
            Row("CPU, both processes: connect, request, close", "us", found.get("us", {}), False),
        ]

    def idle(self) -> list[Row]:
        """Connections that do nothing."""
        count, seconds = self._plan.connections, self._plan.idle

        def measure(side: Side) -> Figures:
            with side.server(_HOST, style="many") as (server, port):
                memory, kernel = stats.process_memory(server.pid), stats.kernel_memory()
                specification = {"role": "idle", "host": _HOST, "port": port, "connections": count}
                with side.worker(specification) as client:
                    client.result("ready", _LIMIT)
                    cpu = server.cpu()
                    time.sleep(seconds)  # the time over which idleness is measured
                    figures = {
                        "cpu": (server.cpu() - cpu) / seconds * 100,
                        "memory": (stats.process_memory(server.pid) - memory) / count / 1024,
                        "kernel": (stats.kernel_memory() - kernel) / count / 1024,
                    }
                    client.tell("stop")
            return figures

        found = self._once(f"{count:,} idle connections", self.sides({}, tcp=True), measure)
        label = f"{count:,} idle connections"
        return [
            Row(f"{label}: server's CPU", "% of a core", found.get("cpu", {}), False, "under 1 %"),
            Row(f"{label}: server's memory for each", "KB", found.get("memory", {}), False, "under 12 KB"),
            Row(f"{label}: kernel's memory for each, both ends", "KB", found.get("kernel", {}), False),
        ]

    def load(self) -> list[Row]:
        """Many connections, each echoing ten times a second."""
        count = self._plan.connections
        label = f"{count:,} connections echoing 1 KB 10 times a second"
        found = self._once(label, self.sides({}, tcp=True), lambda side: self._load(side, count, 10.0))
        return [
            Row(f"{label}: errors and lost messages", "", found.get("bad", {}), False, "none"),
            Row(f"{label}: p99", "ms", found.get("p99", {}), False, "under 50 ms"),
            Row(f"{label}: server's CPU", "% of a core", found.get("server", {}), False),
            Row(f"{label}: CPU, both processes, for a message", "us", found.get("cpu", {}), False, "1 x"),
        ]

    def _load(self, side: Side, count: int, rate: float) -> Figures:
        """`count` connections that echo 1 KB `rate` times a second each."""
        specification = {"role": "load", "size": 1024, "rate": rate, "seconds": self._plan.load}
        parts = -(-count // _CONNECTIONS)  # client processes
        with side.server(_HOST, style="many") as (server, port), contextlib.ExitStack() as stack:
            clients = []
            for part in range(parts):
                share = {"host": _HOST, "port": port, "connections": (count + part) // parts, **specification}
                clients.append(stack.enter_context(side.worker(share)))
                clients[-1].result("ready", _LIMIT)
            before = server.cpu()
            for client in clients:
                client.tell("go")
            results = [client.result("messages", _LIMIT) for client in clients]
            cpu = server.cpu() - before
        seconds = max(result["seconds"] for result in results)
        messages = sum(result["messages"] for result in results)
        return {
            "bad": float(sum(result[kind] for result in results for kind in ("errors", "refused", "missing"))),
            "p99": max(math.inf if result["p99"] is None else result["p99"] for result in results),
            "server": cpu / seconds * 100,
            "cpu": (cpu + sum(result["cpu"] for result in results)) / messages * 1e6,
        }

    def scale(self) -> list[Row]:
        """What a byte costs with windows of different sizes, and a message among more and more connections."""
        rows = []
        for window in self._plan.windows:
            label = f"window of {window:,} packets: CPU, both processes"
            found = self._once(label, self.sides({"sndwnd": window, "rcvwnd": window}, tcp=False), self._bulk)
            rows.append(Row(label, "ns/byte", found.get("ns/byte", {}), False, "flat"))
        for count in self._plan.sessions:
            label = f"{count:,} connections, {_MESSAGES:,} echoes of 1 KB a second in all: CPU, both processes"
            rate = _MESSAGES / count
            found = self._once(
                label,
                self.sides({}, tcp=False),
                lambda side, count=count, rate=rate: self._load(side, count, rate),  # type: ignore[misc]
            )
            rows.append(Row(label, "us a message", found.get("cpu", {}), False, "flat"))
        return rows

    def _once(
        self, name: str, sides: list[Side], measure: Callable[[Side], Figures]
    ) -> dict[str, dict[str, float | str]]:
        plan = dataclasses.replace(self._plan, rounds=1)
        return Bench(plan, self._peer, self._tell)._rounds(name, sides, measure)


PARTS: Final[dict[str, Callable[[Bench], list[Row]]]] = {
    "bulk": Bench.bulk,
    "echo": Bench.echo,
    "connects": Bench.connects,
    "idle": Bench.idle,
    "load": Bench.load,
    "scale": Bench.scale,
}


def _figure(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.3g}"


def report(rows: Sequence[Row]) -> str:
    """The table."""
    sides = [side for side in ("kcpsocket", "kcp-go", "TCP") if any(side in row.figures for row in rows)]
    lines = []
    for row in rows:
        ratio = row.ratio()
        cells = [_figure(row.figures.get(side)) for side in sides]
        lines.append([row.work, row.unit, *cells, "" if ratio is None else f"{ratio:.3g} x", row.goal])
    return "\n".join(table(["work", "unit", *sides, "better than kcp-go", "goal"], lines))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options on `parser`."""
    parser.description = (
        f"Client and server in two processes on loopback, in mode {_MODE}, windows of 1,024 packets: kcpsocket and TCP "
        "from Python, kcp-go where Go is there. The sides take turns; the figures are medians."
    )
    parser.add_argument("--quick", action="store_true", help="one round, fewer connections")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part of the table")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds whose median is taken")
    parser.add_argument("--connections", type=int, metavar="N", help="how many for idle and load")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    plan = QUICK if options.quick else FULL
    plan = dataclasses.replace(
        plan, rounds=options.rounds or plan.rounds, connections=options.connections or plan.connections
    )

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="kcpsocket-bench-") as directory:
        peer, why = build_peer(Path(directory))
        if peer is None:
            tell(f"without kcp-go: {why}")
        bench = Bench(plan, peer, tell)
        rows = [row for name in options.part or PARTS for row in PARTS[name](bench)]
    machine = stats.machine()
    if options.json:
        figures = [
            {"work": row.work, "unit": row.unit, **row.figures, "ratio": row.ratio(), "goal": row.goal} for row in rows
        ]
        print(json.dumps({"machine": machine, "rows": figures}, indent=1))
    else:
        print(f"{stats.describe(machine)}\n\n{report(rows)}")
    return 0

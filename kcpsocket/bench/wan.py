"""``bench wan``: KCP, kcp-go and TCP over bad long links between two network namespaces of this machine."""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from . import link as links
from . import netns, stats, wan_report
from .link import Link
from .process import BenchError, KcpGo, Process, Python, Side, build_peer, go_settings, stop_all
from .settings import add_settings, settings_from
from .transport import Transport

_CLIENT: Final = "10.77.0.1"
_SERVER: Final = "10.77.0.2"
_START_LIMIT: Final = 60.0  # s for a process to start or to end its work after its time
_MESSAGE: Final = 1024  # bytes
_EVERY: Final = 0.02  # s from message to message
_FEC: Final = {"datashard": 10, "parityshard": 3}


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    bulk: int  # bytes of the transfer
    bulk_limit: float  # s after which it is cut off
    messages: int
    fairness: float  # s that two flows share the link; 0: not measured


FULL: Final = Plan(bulk=16_000_000, bulk_limit=15.0, messages=500, fairness=15.0)
QUICK: Final = Plan(bulk=6_000_000, bulk_limit=6.0, messages=200, fairness=0.0)


def all_links() -> dict[str, Link]:
    """The links by name."""
    found = {
        f"{loss} % loss, {rtt} ms": Link(loss=loss / 100, rtt=rtt)
        for rtt in (20, 100, 300)
        for loss in (0, 1, 5, 10, 20)
    }
    # A train ride: bursts of some eight packets, 5 % of all, order upset now and then, delay that wobbles.
    found["phone, 80 ms"] = Link(
        rtt=80, loss=0.005, jitter=15, reorder=0.01, burst_begin=0.008, burst_end=0.125, burst_loss=0.8
    )
    return found


QUICK_LINKS: Final = ("0 % loss, 100 ms", "5 % loss, 100 ms", "phone, 80 ms")


def _available_congestion_controls() -> list[str]:
    try:
        return Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    except FileNotFoundError:
        return []


def all_sides(peer: Path | None, given: dict[str, Any]) -> list[Side]:
    """Everyone who takes part; KCP with the settings `given` besides its own."""
    sides: list[Side] = []
    for mode in ("fast3", "fast2", "fast", "normal"):
        for fec in (False, True):
            settings = {**given, "mode": mode, **(_FEC if fec else {})}
            sides.append(Python(f"kcpsocket {mode}{' fec' * fec}", Transport("kcp", settings)))
    if peer is not None:
        for mode, fec in (("fast3", False), ("fast2", False), ("fast2", True)):
            settings = {**given, "mode": mode, **(_FEC if fec else {})}
            sides.append(KcpGo(f"kcp-go {mode}{' fec' * fec}", peer, go_settings(settings)))
    known = _available_congestion_controls()
    sides.extend(
        Python(f"TCP {name}", Transport("tcp", {"congestion": name})) for name in ("cubic", "bbr") if name in known
    )
    return sides


class Route:
    """Two namespaces, the link between them and the process that plays it. A context manager."""

    def __init__(self, link: Link) -> None:
        self._near = netns.Namespace(_CLIENT, _SERVER)
        try:
            self._far = netns.Namespace(_SERVER, _CLIENT)
            try:
                devices = (self._near.device, self._far.device)
                self._forwarder = Process("link", links.command(link, *devices), pass_fds=devices)
            except BaseException:
                self._far.close()
                raise
        except BaseException:
            self._near.close()
            raise

    def begin(self, seed: object) -> None:
        """Nothing is on the way any more, the losses begin anew."""
        self._forwarder.tell(f"begin {seed}")
        self._forwarder.result("begun", _START_LIMIT)

    def counts(self) -> dict[str, Any]:
        """What the link has carried since."""
        self._forwarder.tell("counts")
        return self._forwarder.result("counts", _START_LIMIT)

    def start(self, side: Side, specification: dict[str, Any], namespace: str = "near") -> Process:
        """A process of `side` at one end."""
        with (self._near if namespace == "near" else self._far).entered():
            return side.worker(specification)

    @contextmanager
    def pair(self, side: Side, specification: dict[str, Any]) -> Iterator[tuple[Process, Process]]:
        """A server of `side` at the far end and a client in a role at the near end: (client, server)."""
        with self.start(side, {"role": "serve", "host": _SERVER}, "far") as server:
            port = server.result("listening", _START_LIMIT)["listening"]
            with self.start(side, {"host": _SERVER, "port": port, **specification}) as client:
                yield client, server

    def close(self) -> None:
        """Takes everything away."""
        self._forwarder.end()
        self._near.close()
        self._far.close()

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pour(seconds: float, count: int) -> dict[str, Any]:
    return {"role": "pour", "seconds": seconds, "bytes": count, "size": 64 << 10}


def measure_bulk(path: Route, side: Side, plan: Plan, seed: object) -> dict[str, Any]:
    """Goodput in Mbit/s, and bytes on the wire for each delivered, both directions apart."""
    path.begin(seed)
    with path.pair(side, _pour(plan.bulk_limit, plan.bulk)) as (client, server):
        got = server.result("drained", plan.bulk_limit + _START_LIMIT)
        counts = path.counts()
        said = client.result("poured", plan.bulk_limit + _START_LIMIT)
    delivered = max(got["drained"], 1)
    there, back = counts["counts"]
    return {
        "goodput": got["drained"] * 8 / 1e6 / max(got["seconds"], 1e-3),
        "seconds": got["seconds"],
        "complete": got["drained"] == plan.bulk,
        "wire": there["bytes"] / delivered,
        "wire_back": back["bytes"] / delivered,
        "link": counts,
        "info": said.get("info"),
        "error": got.get("error"),
    }


def measure_messages(path: Route, side: Side, plan: Plan, seed: object) -> dict[str, Any]:
    """Latency in ms of messages sent at a steady pace; what never arrived counts as infinitely late."""
    path.begin(seed)
    specification = {"role": "stamps", "count": plan.messages, "size": _MESSAGE, "every": _EVERY}
    limit = plan.messages * _EVERY + _START_LIMIT
    with path.pair(side, specification) as (client, server):
        got = server.result("latencies", limit)
        counts = path.counts()
        said = client.result("stamped", limit)
    arrived = got["latencies"]
    samples = arrived + [float("inf")] * (plan.messages - len(arrived))
    there, back = counts["counts"]
    return {
        "p50": stats.percentile(samples, 50),
        "p99": stats.percentile(samples, 99),
        "max": max(samples),
        "missing": plan.messages - len(arrived),
        "wire": there["bytes"] / max(len(arrived) * _MESSAGE, 1),
        "wire_back": back["bytes"] / max(len(arrived) * _MESSAGE, 1),
        "link": counts,
        "info": said.get("info"),
        "error": got.get("error"),
    }


def measure_fairness(path: Route, side: Side, beside: Side, plan: Plan, seed: object) -> dict[str, Any]:
    """What a flow of `beside` gets, and `side`'s own, when both fill the link: Mbit/s, in the later two thirds."""
    path.begin(seed)
    specification = _pour(plan.fairness, 0)
    with (
        path.pair(beside, specification) as (_, their_server),
        path.pair(side, specification) as (_, our_server),
    ):
        theirs = their_server.result("drained", plan.fairness + _START_LIMIT)["tenths"]
        ours = our_server.result("drained", plan.fairness + _START_LIMIT)["tenths"]

    def later(tenths: list[int]) -> float:
        kept = tenths[len(tenths) // 3 : -1]
        return sum(kept) * 8 / 1e6 / (len(kept) / 10)

    return {"theirs": later(theirs), "ours": later(ours)}


def _attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except BenchError as error:
        return {"failed": str(error)}


def measure_link(
    name: str, link: Link, sides: list[Side], plan: Plan, fair: bool, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Everything on one link."""
    results = []
    beside = next((side for side in sides if side.name == "TCP bbr"), None)
    with Route(link) as path:
        for side in sides:
            row: dict[str, Any] = {"link": name, "side": side.name}
            row["bulk"] = _attempt(lambda side=side: measure_bulk(path, side, plan, name))  # type: ignore[misc]
            row["messages"] = _attempt(lambda side=side: measure_messages(path, side, plan, name))  # type: ignore[misc]
            if fair and beside is not None and plan.fairness:
                row["fairness"] = _attempt(
                    lambda side=side: measure_fairness(path, side, beside, plan, name)  # type: ignore[misc]
                )
            tell(wan_report.line(row))
            results.append(row)
    return results


def run(wanted: dict[str, Link], sides: list[Side], plan: Plan, jobs: int) -> list[dict[str, Any]]:
    """Measures all the links, `jobs` of them at a time."""
    todo: queue.SimpleQueue[tuple[str, Link]] = queue.SimpleQueue()
    for item in wanted.items():
        todo.put(item)
    results: list[dict[str, Any]] = []
    errors: list[BaseException] = []
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            print(text, file=sys.stderr, flush=True)

    def work() -> None:
        try:
            while not errors:
                try:
                    name, link = todo.get_nowait()
                except queue.Empty:
                    return
                fair = link.rtt == 100 and link.loss in (0, 0.01)
                rows = measure_link(name, link, sides, plan, fair, tell)
                with lock:
                    results.extend(rows)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, len(wanted)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not come in between
        stop_all()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]
    order = {name: index for index, name in enumerate(wanted)}
    results.sort(key=lambda row: order[row["link"]])
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options on `parser`."""
    parser.description = (
        "Two network namespaces joined by a link that delays, loses and reorders packets (root only). On it a bulk "
        "transfer, and messages of 1 KB every 20 ms, by kcpsocket, kcp-go (where Go is there) and TCP. Writes wan.md, "
        "wan.json and, with matplotlib, plots."
    )
    parser.add_argument("--quick", action="store_true", help="three links, shorter: some three minutes")
    parser.add_argument(
        "--link",
        action="append",
        metavar="TEXT",
        help="only links whose name has this, from the beginning of a word on",
    )
    parser.add_argument("--only", action="append", metavar="TEXT", help="only those whose name contains this")
    parser.add_argument(
        "--jobs", type=int, default=max(os.cpu_count() or 1, 2), metavar="N", help="links at the same time"
    )
    parser.add_argument("--output", type=Path, default=Path("bench-wan"), metavar="DIRECTORY")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="report from an earlier wan.json")
    add_settings(parser)


def main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    if options.source is not None:
        report = json.loads(options.source.read_text())
    else:
        try:
            given = settings_from(options)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        reason = netns.missing()
        if reason is not None:
            print(f"bench wan {reason}", file=sys.stderr)
            return 1
        wanted = all_links()
        if options.link or options.quick:
            picks = options.link or QUICK_LINKS
            wanted = {name: link for name, link in wanted.items() if any(f" {pick}" in f" {name}" for pick in picks)}
        with tempfile.TemporaryDirectory(prefix="kcpsocket-bench-") as directory:
            peer, why = build_peer(Path(directory))
            if peer is None:
                print(f"without kcp-go: {why}", file=sys.stderr)
            sides = all_sides(peer, given)
            if options.only:
                sides = [side for side in sides if any(pick in side.name for pick in options.only)]
            if not wanted or not sides:
                parser.error("nothing to measure: --link or --only matches nothing")
            plan = QUICK if options.quick else FULL
            begin = time.monotonic()
            report = {
                "machine": stats.machine(),
                "plan": asdict(plan),
                "settings": {name: value for name, value in given.items() if name != "key"},
                "links": {name: asdict(link) for name, link in wanted.items()},
                "results": run(wanted, sides, plan, options.jobs),
            }
            print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.source is None:
        (options.output / "wan.json").write_text(json.dumps(report, indent=1))
    text = wan_report.markdown(report)
    (options.output / "wan.md").write_text(text)
    print(text)
    for path in wan_report.plots(report, options.output):
        print(path, file=sys.stderr)
    return 0

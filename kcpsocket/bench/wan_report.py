"""The results of ``bench wan`` as Markdown and as plots."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from . import stats
from .table import table


def _number(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.{digits}f}"


def cells(row: dict[str, Any]) -> list[str]:
    """A result as the cells of a table, behind the name of who it is."""
    bulk, messages = row["bulk"], row["messages"]
    found = []
    if "failed" in bulk:
        found += ["failed", "", ""]
    else:
        found += [_number(bulk["goodput"], 2), _number(bulk["wire"], 2), _number(bulk["wire_back"], 2)]
    if "failed" in messages:
        found += ["failed", "", "", ""]
    else:
        found += [_number(messages[name], 0) for name in ("p50", "p99", "max")] + [_number(messages["wire"], 2)]
    return found


_HEAD = ["", "goodput Mbit/s", "wire", "wire back", "p50 ms", "p99 ms", "max ms", "wire, messages"]


def line(row: dict[str, Any]) -> str:
    """A result for who watches the run."""
    said = [f"{row['link']:<18} {row['side']:<20}"]
    said += [f"{name}: {cell}" for name, cell in zip(_HEAD[1:], cells(row), strict=True)]
    if "fairness" in row and "failed" not in row["fairness"]:
        said.append(f"bbr beside: {row['fairness']['theirs']:.1f} of {sum(row['fairness'].values()):.1f}")
    problems = [f"{part}: {row[part]['failed']}" for part in ("bulk", "messages") if "failed" in row[part]]
    return "  ".join(said + problems)


def _goals(results: list[dict[str, Any]]) -> list[str]:
    """How the results stand to what the project wants."""
    by = {(row["link"], row["side"]): row for row in results if "failed" not in {**row["bulk"], **row["messages"]}}
    lines = []
    ours, cubic = (by.get(("5 % loss, 100 ms", side)) for side in ("kcpsocket fast2", "TCP cubic"))
    if ours and cubic:
        latency = ours["messages"]["p99"] / cubic["messages"]["p99"]
        goodput = ours["bulk"]["goodput"] / max(cubic["bulk"]["goodput"], 1e-9)
        lines.append(
            f"- kcpsocket fast2 and TCP cubic at 5 % loss, 100 ms: p99 latency {latency:.2f} of TCP's (goal: at most "
            f"0.33), goodput {goodput:.1f} times TCP's (goal: at least 5)"
        )
    for (name, side), row in by.items():
        if side.startswith("kcp-go"):
            mine = by.get((name, side.replace("kcp-go", "kcpsocket")))
            if mine is None:
                continue
            for what, more_is_better, part in (("goodput", True, "bulk"), ("p99", False, "messages")):
                a, b = mine[part][what], row[part][what]
                if (a < b * 0.95) if more_is_better else (a > b * 1.05 + 2):
                    lines.append(f"- {name}: {mine['side']} below {side} in {what}: {_number(a)} to {_number(b)}")
        elif side.startswith("kcpsocket") and not side.endswith("fec") and row["bulk"]["wire"] > 1.3:
            lines.append(f"- {name}: {side} puts {row['bulk']['wire']:.2f} bytes on the wire for each (goal: 1.30)")
    return lines


_SUMMED = ("kcpsocket fast2", "kcpsocket fast2 fec", "kcp-go fast2", "TCP cubic", "TCP bbr")


def _glance(results: list[dict[str, Any]], links: list[str]) -> list[str]:
    """The figures of a few sides, a link a line: goodput, a stroke, and the p99 of the messages' latency."""
    by = {(row["link"], row["side"]): row for row in results}
    sides = [side for side in _SUMMED if any(row["side"] == side for row in results)]
    lines = []
    for name in links:
        found = [by.get((name, side)) for side in sides]
        pairs = [("-", "-") if row is None else (cells(row)[0], cells(row)[4] or "failed") for row in found]
        lines.append([name, *(f"{goodput} / {latency}" for goodput, latency in pairs)])
    return table(["Mbit/s / p99 ms", *sides], lines)


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    plan, results = report["plan"], report["results"]
    lines = [
        f"{stats.describe(report['machine'])}.",
        "",
        f"Bulk: {plan['bulk'] / 1e6:g} MB, cut off after {plan['bulk_limit']:g} s. Messages: {plan['messages']} of "
        "1 KB, one every 20 ms. Loss is in each direction. The transmitter of either end has 20 Mbit/s and a queue of "
        "100 ms. Wire: bytes of IP packets sent for each byte delivered; wire back: the same, of the acknowledging "
        "side. fec: 10 data and 3 parity packets.",
    ]
    lines += ["", "### At a glance", "", "Goodput of the bulk transfer, and p99 latency of the messages.", ""]
    lines += _glance(results, list(report["links"]))
    for name in report["links"]:
        lines += ["", f"### {name}", ""]
        rows = [row for row in results if row["link"] == name]
        lines += table(_HEAD, [[row["side"], *cells(row)] for row in rows])
        fair = [row for row in rows if "fairness" in row and "failed" not in row["fairness"]]
        if fair:
            lines += ["", "What a flow of TCP bbr gets on this link, of a fair half, beside", ""]
            half = report["links"][name]["rate"] / 2
            lines += table(
                ["", "its share", "Mbit/s", "the other's Mbit/s"],
                [
                    [
                        row["side"],
                        f"{row['fairness']['theirs'] / half:.0%}",
                        _number(row["fairness"]["theirs"]),
                        _number(row["fairness"]["ours"]),
                    ]
                    for row in fair
                ],
            )
    goals = _goals(results)
    if goals:
        lines += ["", "### Goals", "", *goals]
    return "\n".join(lines) + "\n"


def plots(report: dict[str, Any], directory: Path) -> list[Path]:
    """Draws goodput and latency over loss, a picture for each; nothing without matplotlib, which it says."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("no plots: matplotlib is not installed (the extra `bench`)", file=sys.stderr)
        return []
    grid = {name: link for name, link in report["links"].items() if not link["burst_begin"]}
    delays = sorted({link["rtt"] for link in grid.values()})
    if len({link["loss"] for link in grid.values()}) < 2:
        return []
    sides = list(dict.fromkeys(row["side"] for row in report["results"]))
    drawn = [s for s in sides if not s.startswith("kcpsocket") or s.startswith(("kcpsocket fast2", "kcpsocket normal"))]
    paths = []
    for part, value, label in (
        ("bulk", "goodput", "goodput, Mbit/s"),
        ("messages", "p99", "p99 latency of messages, ms"),
    ):
        figure = Figure(figsize=(4.2 * len(delays), 4.2), layout="constrained")
        for index, delay in enumerate(delays):
            axes = figure.add_subplot(1, len(delays), index + 1)
            for side in drawn:
                points = []
                for row in report["results"]:
                    link = grid.get(row["link"])
                    if row["side"] == side and link and link["rtt"] == delay and "failed" not in row[part]:
                        points.append((link["loss"] * 100, row[part][value]))
                points = sorted(point for point in points if math.isfinite(point[1]))
                style = {"kcpsocket": "-", "kcp-go": "--"}.get(side.split()[0], ":")
                axes.plot([x for x, _ in points], [y for _, y in points], style, marker="o", markersize=3, label=side)
            axes.set_title(f"{delay:g} ms")
            axes.set_xlabel("loss, %")
            axes.set_ylabel(label)
            if part == "messages":
                axes.set_yscale("log")
            axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
        path = directory / f"wan-{value}.png"
        figure.savefig(path, dpi=110)
        paths.append(path)
    return paths

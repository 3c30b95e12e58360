"""Figures about samples, processes and the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Of /proc/meminfo: what the kernel holds for itself. Buffers of sockets are in Slab, or in no line at all when they
#: are whole pages; MemFree tells about those, but about everything else on the machine too.
_KERNEL_LINES: Final = ("Slab", "KernelStack", "PageTables", "Percpu")


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of `samples` (any order). ValueError when there are none."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(int(rank), 1) - 1]


def median(samples: Sequence[float]) -> float:
    """The middle of `samples`; of an even number the lower one, so that it is a figure that was seen."""
    return percentile(samples, 50)


def cpu_seconds() -> float:
    """CPU time, user and system, that this process has used with all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def process_memory(pid: int) -> int:
    """Bytes of memory that process `pid` has to itself: anonymous pages, without files that it maps."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/{pid}/status has no RssAnon")


def kernel_memory() -> int:
    """Bytes that the kernel of this machine holds for itself (all processes' sockets are in it)."""
    total = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in _KERNEL_LINES:
            total += int(value.split()[0]) * 1024
    return total


def raise_descriptor_limit() -> int:
    """Allows this process as many descriptors as it may allow itself; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _go_version() -> str | None:
    go = shutil.which("go")
    if go is None:
        return None
    words = subprocess.run([go, "version"], capture_output=True, text=True, timeout=30).stdout.split()
    return words[2].removeprefix("go") if len(words) > 2 else None


def machine() -> dict[str, str]:
    """What a table of figures has to say of where they come from."""
    found = {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    try:
        found["kcpsocket"] = importlib.metadata.version("kcpsocket")
    except importlib.metadata.PackageNotFoundError:
        found["kcpsocket"] = "not installed: run from its source"
    go = _go_version()
    if go is not None:
        found["go"] = go
    return found


def describe(found: dict[str, str]) -> str:
    """`machine()` in one line."""
    return ", ".join(f"{name} {value}" if name != "processor" else value for name, value in found.items())

"""The two runs of a module, side by side: what passes on plain sockets and does not under patch()."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .runner import LIMIT, Outcome, Results, run_module

KNOWN_DIFFERENCES = Path(__file__).resolve().parent.parent / "known_differences.json"


@dataclass(frozen=True)
class Known:
    """A known difference. Not `always`: the test's outcome under patch() depends on timing."""

    reason: str
    always: bool


@dataclass
class Comparison:
    """A module's score. `differing` holds the tests that pass on plain sockets but not under patch(), with how they end
    there; `unsteady` those that failed once under patch() but passed alone, in a process of their own."""

    plain: Results
    patched: Results
    differing: dict[str, Outcome] = field(default_factory=dict)
    unsteady: dict[str, Outcome] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return self.plain.module

    @property
    def plain_passes(self) -> int:
        return len(self.plain.passed())

    @property
    def patched_passes(self) -> int:
        """Of those that pass on plain sockets."""
        return self.plain_passes - len(self.differing)


def compare(module: str, limit: float = LIMIT, select: Callable[[str], bool] = lambda name: True) -> Comparison:
    """Runs `module` both ways at once; `limit` in s for each test."""
    with ThreadPoolExecutor(2) as both:
        plain, patched = both.map(lambda kind: run_module(module, kind, limit, select), (False, True))
    comparison = Comparison(plain, patched)
    suspects = sorted(plain.passed() - patched.passed())
    # Alone, as neither what earlier tests left behind nor a busy machine should decide.
    alone = run_module(module, True, limit, frozenset(suspects).__contains__) if suspects else patched
    for name in suspects:
        outcome = patched.tests.get(name) or Outcome("lost", patched.unavailable or "")
        again = alone.tests.get(name) or outcome
        (comparison.unsteady if again.outcome == "pass" else comparison.differing)[name] = outcome
    return comparison


def known_differences() -> dict[str, Known]:
    """Tests that are known to differ under patch(), and why."""
    loaded = json.loads(KNOWN_DIFFERENCES.read_text())
    return {name: Known(entry["reason"], entry["always"]) for name, entry in loaded.items()}


def differences_of(comparison: Comparison) -> tuple[dict[str, Outcome], set[str]]:
    """What differs and is not known to, and what is known to differ always and does not."""
    known = known_differences()
    new = {name: outcome for name, outcome in comparison.differing.items() if name not in known}
    passed_both = comparison.plain.passed() - comparison.differing.keys()
    return new, {name for name in passed_both if name in known and known[name].always}


def table(comparisons: Iterable[Comparison]) -> str:
    """The scores as text, a line for each module and one for each test that differs."""
    known = known_differences()
    lines = [f"{'module':34}{'plain':>7}{'patched':>9}{'differ':>8}{'sessions':>10}{'s':>10}"]
    total = total_patched = 0
    for one in comparisons:
        if one.plain.unavailable is not None:
            lines.append(f"{one.module:34}  {one.plain.unavailable.splitlines()[0]}")
            continue
        total += one.plain_passes
        total_patched += one.patched_passes
        seconds = f"{one.plain.seconds:.0f}/{one.patched.seconds:.0f}"
        lines.append(
            f"{one.module:34}{one.plain_passes:7}{one.patched_passes:9}{len(one.differing):8}"
            f"{one.patched.sessions:10}{seconds:>10}"
        )
        for name, outcome in one.differing.items():
            reason = known[name].reason if name in known else "NOT KNOWN"
            lines.append(f"    {outcome.outcome:5} {name}: {reason}")
        for name, outcome in one.unsteady.items():
            lines.append(f"    {outcome.outcome:5} {name}: passes alone")
    share = f"{100 * total_patched / total:.2f} %" if total else "-"
    lines.append(f"{'all':34}{total:7}{total_patched:9}{total - total_patched:8}   {share}")
    return "\n".join(lines)

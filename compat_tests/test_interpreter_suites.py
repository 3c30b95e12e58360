"""The interpreter's own network suites under patch(): what passes on plain sockets passes over KCP.

Except the tests that known_differences.json names with reasons; one of those that no longer differs is a failure, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from interpreter.compare import Comparison, compare, differences_of, known_differences, table
from interpreter.runner import run_module
from interpreter.suites import MODULES, SLOW, WITHOUT_SESSIONS, missing

LIMIT = 20.0  # s for each of the suites' tests
# Comparisons at once, two processes each. The suites mostly wait.
JOBS = max(2, min(4, (os.cpu_count() or 2)))

Comparisons = dict[str, "Future[Comparison]"]


@pytest.fixture(scope="module")
def comparisons(request: pytest.FixtureRequest) -> Iterator[Comparisons]:
    """The comparisons of all modules that were selected, on their way."""
    selected = {item.callspec.params.get("module") for item in request.session.items if hasattr(item, "callspec")}
    modules = [module for module in MODULES if module in selected and missing(module) is None]
    with ThreadPoolExecutor(JOBS) as jobs:
        futures = {module: jobs.submit(compare, module, LIMIT, lambda name: name not in SLOW) for module in modules}
        yield futures
        for future in futures.values():
            future.cancel()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", MODULES)
def test_passes_under_patch(module: str, comparisons: Comparisons) -> None:
    reason = missing(module)
    if reason is not None:
        pytest.skip(reason)
    comparison = comparisons[module].result()
    print(table([comparison]))
    if comparison.plain.unavailable is not None:
        pytest.skip(comparison.plain.unavailable)
    assert comparison.plain_passes, "nothing passes on plain sockets: nothing was compared"
    new, vanished = differences_of(comparison)
    assert not new, "\n".join(f"{name} ({outcome.outcome}):\n{outcome.detail}" for name, outcome in new.items())
    assert not vanished, f"known to differ, but do not: take them out of known_differences.json: {sorted(vanished)}"
    if module not in WITHOUT_SESSIONS:
        assert comparison.patched.sessions, "no KCP session was made: patch() did not reach these tests"


def test_known_differences_are_named_with_reasons() -> None:
    for name, known in known_differences().items():
        assert name.startswith("test."), name
        assert len(known.reason) > 20, name


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_harness_survives_whatever_a_test_does(patched: bool) -> None:
    results = run_module("faulty", patched, limit=10.0, package="interpreter")
    assert results.unavailable is None
    assert {name.rpartition(".")[2]: outcome.outcome for name, outcome in results.tests.items()} == {
        "test_a_passes": "pass",
        "test_b_fails": "fail",
        "test_c_crashes": "crash",
        "test_d_exits": "crash",
        "test_e_hangs": "hang",
        "test_f_is_skipped": "skip",
        "test_g_fails_in_a_part": "fail",
        "test_h_fails_as_expected": "pass",
        "test_i_succeeds_unexpectedly": "fail",
        "test_j_leaves_a_thread_and_a_process": "pass",
        "test_k_reaches_this_machine": "pass",
        "test_l_reaches_no_other": "pass",
        "test_never_starts": "lost",
    }
    assert (results.sessions > 0) is patched

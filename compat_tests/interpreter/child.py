"""The process that runs tests: ``python -m interpreter.child REQUEST`` with REQUEST a JSON object (see Request).

Writes one JSON object a line to the request's descriptor: {"plan": [id, ...]} once the module is loaded (or
{"unavailable": reason}), {"start": index} and {"end": index, "outcome": ..., "detail": ...} for each test,
{"broken": text} where a class or module fixture failed, {"done": true, "sessions": n} at the end (n: KCP sessions that
there were).
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import types
import unittest
from collections.abc import Iterator
from typing import Any, TypedDict

import kcpsocket

from .sandbox import confine
from .suites import CLASSES


class Request(TypedDict):
    """What the child is asked to do."""

    package: str  # "test"
    module: str  # as in suites.MODULES
    patched: bool  # under kcpsocket.patch()
    report: int  # descriptor to write to
    only: list[int] | None  # places in the plan to run; None: all
    done: list[int]  # places in the plan to pass over


class Reporter:
    """Writes to the parent; silent in processes that a test has forked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._process = os.getpid()
        os.set_inheritable(descriptor, False)

    def send(self, **message: Any) -> None:
        if os.getpid() != self._process:
            return
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(self._descriptor, data) :]


class ReportingResult(unittest.TestResult):
    """Reports each test as it starts and ends. An expected failure counts as a pass, an unexpected success as none."""

    def __init__(self, reporter: Reporter, places: dict[int, int]) -> None:
        super().__init__()
        self._reporter = reporter
        self._places = places  # of tests, by their object's id()
        self._outcome = ("pass", "")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome = ("pass", "")
        self._reporter.send(start=self._places[id(test)])

    def stopTest(self, test: unittest.TestCase) -> None:
        outcome, detail = self._outcome
        self._reporter.send(end=self._places[id(test)], outcome=outcome, detail=detail[-4000:])
        super().stopTest(test)

    def _failed(self, test: unittest.TestCase, error: Any) -> None:
        detail = self._exc_info_to_string(error, test)  # type: ignore[attr-defined]
        if id(test) in self._places:
            self._outcome = ("fail", (self._outcome[1] + detail))
        else:  # a fixture of a class or module
            self._reporter.send(broken=f"{test}\n{detail}"[-4000:])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._failed(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            detail = self._exc_info_to_string(err, test)  # type: ignore[attr-defined]
            self._outcome = ("fail", self._outcome[1] + f"{subtest}\n{detail}")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        if id(test) in self._places and self._outcome[0] == "pass":
            self._outcome = ("skip", reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._outcome = ("fail", "unexpected success")


def flatten(suite: unittest.TestSuite | unittest.TestCase) -> Iterator[unittest.TestCase]:
    """The tests of `suite` in the order in which it would run them."""
    if isinstance(suite, unittest.TestSuite):
        for inner in suite:
            yield from flatten(inner)
    else:
        yield suite


def load(package: str, module: str) -> list[unittest.TestCase]:
    """The tests of ``<package>.<module>``. Raises unittest.SkipTest where the module says that it can't run here."""
    support: Any = importlib.import_module("test.support")
    support.use_resources = ["network", "walltime", "cpu"]
    support.verbose = 0
    loaded = importlib.import_module(f"{package}.{module}")
    if hasattr(loaded, "install_tests_in_module_dict"):  # _test_multiprocessing: its tests are for others to take
        name = f"test.{module.strip('_')}_fork"
        taken = sys.modules[name] = types.ModuleType(name)
        loaded.install_tests_in_module_dict(taken.__dict__, "fork")
        loaded = taken
    tests = flatten(unittest.defaultTestLoader.loadTestsFromModule(loaded))
    words = CLASSES.get(module, ("",))
    return [test for test in tests if any(word in type(test).__name__ for word in words)]


def main(request: Request) -> None:
    """Runs what `request` asks for."""
    reporter = Reporter(request["report"])
    faulthandler.enable()
    if request["patched"]:
        kcpsocket.patch()
    confine()
    try:
        tests = load(request["package"], request["module"])
    except unittest.SkipTest as reason:
        reporter.send(unavailable=str(reason))
        return
    reporter.send(plan=[test.id() for test in tests])
    wanted = set(range(len(tests)) if request["only"] is None else request["only"]) - set(request["done"])
    suite = unittest.TestSuite(test for place, test in enumerate(tests) if place in wanted)
    places = {id(test): place for place, test in enumerate(tests)}
    suite.run(ReportingResult(reporter, places))
    counters = kcpsocket.snmp()
    reporter.send(done=True, sessions=counters["ActiveOpens"] + counters["PassiveOpens"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads and processes that a failed test left behind must not keep this one.
    os._exit(0)

"""``python -m compat_tests.interpreter [module ...]``: the table of all modules, or of those named."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from .compare import Comparison, compare, differences_of, table
from .runner import LIMIT
from .suites import MODULES, missing


def main() -> int:
    """Exit code 1 when a test differs that known_differences.json does not name."""
    parser = argparse.ArgumentParser(prog="python -m compat_tests.interpreter", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="MODULE", help="such as test_socket")
    parser.add_argument("-k", dest="pattern", default="*", help="only tests whose id matches, as *TCP*")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="S", help="seconds that one test may take")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write all outcomes, with tracebacks, as JSON")
    options = parser.parse_args()
    comparisons: list[Comparison] = []
    for module in options.modules:
        reason = missing(module)
        if reason is not None:
            print(f"{module}: {reason}", file=sys.stderr, flush=True)
            continue
        comparison = compare(module, options.limit, lambda name: fnmatchcase(name, options.pattern))
        comparisons.append(comparison)
        print(f"{module}: {len(comparison.differing)} differ", file=sys.stderr, flush=True)
        if options.save is not None:
            options.save.write_text(json.dumps([asdict(one) for one in comparisons], indent=1))
    print(table(comparisons))
    return 1 if any(differences_of(one)[0] for one in comparisons) else 0


if __name__ == "__main__":
    sys.exit(main())

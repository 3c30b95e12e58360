"""The command line: ``python -m kcpsocket run``, ``python -m kcpsocket demo``."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata

from . import demo, run
from .bench import command as bench


def main(arguments: list[str] | None = None) -> int:
    """Runs the command that `arguments` (default: the process's own) name; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kcpsocket", description="Sockets whose bytes travel over KCP.", allow_abbrev=False
    )
    parser.add_argument("--version", action="store_true", help="say the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="")
    for name, module, text in (
        ("run", run, "run an unmodified Python program over KCP"),
        ("bench", bench, "measure throughput, latency and behaviour on bad links"),
        ("demo", demo, "fetch a file by HTTP over a bad network, and see what KCP makes of it"),
    ):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(main=module.main, parser=command)
    options = parser.parse_args(arguments)
    if options.version:
        print(f"kcpsocket {metadata.version('kcpsocket')}")
        return 0
    if not hasattr(options, "main"):
        parser.print_help()
        return 0
    code: int = options.main(options.parser, options)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""The command line of `python -m kcpsocket bench`."""

from __future__ import annotations

import argparse
import sys

from . import codecs, iperf, local, wan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-commands on `parser`."""
    parser.description = "Measures kcpsocket, and kcp-go (where Go is there) and TCP beside it."
    commands = parser.add_subparsers(title="benchmarks", metavar="", required=True)
    for name, text, arguments, run in (
        ("server", "wait for `bench client` of another machine", iperf.add_server_arguments, iperf.server_main),
        ("client", "measure the throughput to a `bench server`", iperf.add_client_arguments, iperf.client_main),
        ("local", "throughput, latency, CPU and memory on this machine", local.add_arguments, local.main),
        ("wan", "bad long links between two network namespaces (root only)", wan.add_arguments, wan.main),
        ("cipher", "the ciphers alone", codecs.add_cipher_arguments, codecs.cipher_main),
        ("fec", "forward error correction alone", codecs.add_fec_arguments, codecs.fec_main),
    ):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        arguments(command)
        command.set_defaults(bench=run, bench_parser=command)


def main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs the benchmark that was asked for; returns the exit code."""
    try:
        code: int = options.bench(options.bench_parser, options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code

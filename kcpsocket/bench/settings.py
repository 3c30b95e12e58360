"""The KCP settings of a benchmark's command line: the fields of Config, by the names that `run` has for them."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any, Final

from ..config import Config

KEY_VARIABLE: Final = "KCPSOCKET_KEY"  # as `run` has it

_FIELDS: Final[tuple[tuple[str, type, str], ...]] = (
    ("key", str, "passphrase; the key is derived from it as kcptun does"),
    ("crypt", str, "cipher by kcptun's name; without a key: null"),
    ("mode", str, "normal, fast, fast2 or fast3"),
    ("nodelay", int, "1: retransmission time-outs grow by half, not twofold"),
    ("interval", int, "how long an acknowledgement may wait for company, in ms"),
    ("resend", int, "send a packet again after so many later ones were acknowledged; 0: never"),
    ("nc", int, "1: no congestion window"),
    ("mtu", int, "largest UDP payload in bytes, all headers included"),
    ("sndwnd", int, "send window in packets"),
    ("rcvwnd", int, "receive window in packets"),
    ("datashard", int, "forward error correction: data packets in a group; 0: off"),
    ("parityshard", int, "forward error correction: parity packets in a group; 0: off"),
    ("dscp", int, "DSCP of the UDP packets, 0 to 63"),
    ("sockbuf", int, "kernel buffers of the UDP socket in bytes"),
    ("keepalive", int, "seconds of silence before a keepalive probe; 0: no probes"),
)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declares the settings on `parser`."""
    group = parser.add_argument_group("KCP settings")
    group.add_argument("--config", metavar="FILE", help="read settings from a file in kcptun's JSON format")
    for name, kind, text in _FIELDS:
        group.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper(), default=argparse.SUPPRESS, help=text)
    group.add_argument("--acknodelay", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
    group.add_argument("--bdp-limit", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)


def settings_from(options: argparse.Namespace) -> dict[str, Any]:
    """What was given, as fields of Config; of the command line before the environment before the file.

    Raises ValueError for a setting that is out of range, OSError when the file can't be read.
    """
    given: dict[str, Any] = {}
    if options.config is not None:
        given = dataclasses.asdict(Config.from_file(options.config))
        if hasattr(options, "mode"):  # it stands for these four, so it overrules what the file says of them
            for name in ("nodelay", "interval", "resend", "nc"):
                del given[name]
    if os.environ.get(KEY_VARIABLE):
        given["key"] = os.environ[KEY_VARIABLE]
    given.update({name: getattr(options, name) for name, *_ in _FIELDS if hasattr(options, name)})
    for flag in ("acknodelay", "bdp_limit"):
        if hasattr(options, flag):
            given[flag] = getattr(options, flag)
    Config(**given)  # a bad one is found here, and not in a process that is started later
    return given

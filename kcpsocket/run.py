"""``python -m kcpsocket run``: an unmodified Python program whose TCP sockets are KCP sockets."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import os
import runpy
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Any

from .config import Config
from .patching import patch

KEY_VARIABLE = "KCPSOCKET_KEY"

_EPILOG = f"""\
Options stand before the program; all that follows it is the program's own.

The key may be given in the environment as {KEY_VARIABLE} instead, where other users' ps does not show it. Both ends
must have the same key, crypt and shards. Settings given here go before those of --config.

examples:
  python -m kcpsocket run -m http.server 8000
  python -m kcpsocket run --key secret --mode fast3 client.py example.com 8000
  python -m kcpsocket run --exclude db.example.com:5432 server.py
"""

# Command-line settings: (field of Config, type, placeholder, help). A bool is a switch with a --no- form.
_SETTINGS: tuple[tuple[str, type, str, str], ...] = (
    ("key", str, "TEXT", "passphrase; the key is derived from it as kcptun does"),
    ("crypt", str, "NAME", "cipher by kcptun's name; without a key: null"),
    ("mode", str, "NAME", "normal, fast, fast2 or fast3; default: fast2"),
    ("nodelay", int, "0|1", "1: retransmission time-outs grow by half, not twofold"),
    ("interval", int, "MS", "how often queued packets and acknowledgements go out, in ms"),
    ("resend", int, "N", "send a packet again after so many later ones were acknowledged; 0: never"),
    ("nc", int, "0|1", "1: no congestion window"),
    ("mtu", int, "BYTES", "largest UDP payload, all headers included"),
    ("sndwnd", int, "PACKETS", "send window"),
    ("rcvwnd", int, "PACKETS", "receive window"),
    ("datashard", int, "N", "forward error correction: data packets in a group; 0: off"),
    ("parityshard", int, "N", "forward error correction: parity packets in a group; 0: off"),
    ("bdp_limit", bool, "", "keep no more in flight than the link carries (the default), or fill the window"),
    ("acknodelay", bool, "", "acknowledge at once rather than at the next interval"),
    ("dscp", int, "N", "DSCP of the UDP packets, 0 to 63"),
    ("sockbuf", int, "BYTES", "kernel buffers of the UDP socket"),
    ("keepalive", int, "S", "seconds of silence before a keepalive probe; 0: no probes"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `run` on `parser`."""
    parser.usage = "%(prog)s [options] (SCRIPT | -m MODULE) [ARGUMENT ...]"
    parser.description = "Runs a Python program whose TCP sockets are carried over KCP."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    settings = parser.add_argument_group("KCP settings")
    settings.add_argument("--config", metavar="FILE", help="read settings from a file in kcptun's JSON format")
    for name, kind, placeholder, text in _SETTINGS:
        if kind is bool:
            option = "--" + name.replace("_", "-")
            settings.add_argument(
                option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            settings.add_argument(f"--{name}", type=kind, metavar=placeholder, default=argparse.SUPPRESS, help=text)
    which = parser.add_argument_group(
        "which addresses", "RULE is [HOST][:PORT]: 10.0.0.5, 10.0.0.0/8:5432, :8000-8099, [::1]:80, db.example.com:5432"
    )
    which.add_argument(
        "--only", metavar="RULE", action="append", help="KCP for these addresses, TCP for all others; may be repeated"
    )
    which.add_argument(
        "--exclude", metavar="RULE", action="append", default=[], help="TCP for these addresses; may be repeated"
    )
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module, as python -m does"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def config_from(options: argparse.Namespace) -> Config:
    """The Config that the command line, the environment and the file say, in this order of precedence.

    Raises ValueError for a setting that is out of range, OSError when the file can't be read.
    """
    given: dict[str, Any] = {name: getattr(options, name) for name, *_ in _SETTINGS if hasattr(options, name)}
    if "key" not in given and os.environ.get(KEY_VARIABLE):
        given["key"] = os.environ[KEY_VARIABLE]
    if options.config is None:
        return Config(**given)
    if "mode" in given:  # it stands for these four, so it overrules what the file says of them
        for name in ("nodelay", "interval", "resend", "nc"):
            given.setdefault(name, Config.__dataclass_fields__[name].default)
    return dataclasses.replace(Config.from_file(options.config), **given)


def main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Patches `socket`, then runs the program; what it raises, SystemExit included, goes on to the interpreter."""
    is_module = options.module is not None
    command: list[str] = (options.module or []) + options.program
    if command and command[0] == "--":
        command = command[1:]
    if not command:
        parser.error("-m needs the name of a module" if is_module else "no program: give a script or -m MODULE")
    try:
        patch(config_from(options), only=options.only, exclude=options.exclude)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    _hide_own_frames()
    (_run_module if is_module else _run_script)(command)
    return 0


def _run_script(command: list[str]) -> None:
    """Runs a file, or a directory or archive with a ``__main__.py``, as ``python PATH`` does."""
    path = command[0]
    sys.argv[:] = command
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        _first_on_path(None)  # runpy puts the directory or archive itself there
        runpy.run_path(path, run_name="__main__")
        return
    full_path = os.path.join(os.getcwd(), path)  # not normalised, as in the interpreter
    try:
        with io.open_code(full_path) as file:
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: can't open file {full_path!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    _first_on_path(os.path.dirname(os.path.realpath(path)))
    # Not runpy.run_path here: it takes `__main__` away again when the script's last line is done, under the feet of
    # threads that are still running then.
    main_module = types.ModuleType("__main__")
    main_module.__dict__.update(
        __file__=full_path,
        __cached__=None,
        __builtins__=sys.modules["builtins"],
        __loader__=SourceFileLoader("__main__", full_path),
    )
    sys.modules["__main__"] = main_module
    exec(compile(source, full_path, "exec", dont_inherit=True), main_module.__dict__)


def _run_module(command: list[str]) -> None:
    """Runs a module or package as ``python -m NAME`` does."""
    name = command[0]
    sys.argv[:] = command
    _first_on_path(os.getcwd())
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:  # a package that the name goes through
        if error.name is None or not name.startswith(error.name + "."):
            raise
        found = False
    if not found:
        sys.exit(f"{sys.executable}: No module named {name}")
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _first_on_path(directory: str | None) -> None:
    """Puts a directory (or nothing) where the interpreter has put the one that this command itself was started from."""
    if getattr(sys.flags, "safe_path", False):  # python -P, -I: nothing was put there
        return
    del sys.path[0]
    if directory is not None:
        sys.path.insert(0, directory)


def _hide_own_frames() -> None:
    """Makes tracebacks begin at the program's own first line, as if the interpreter had run it."""
    before = sys.excepthook
    own = {__file__, os.path.join(os.path.dirname(__file__), "__main__.py")}

    def hook(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
        begin = traceback
        while begin is not None and _is_machinery(begin.tb_frame.f_code.co_filename, own):
            begin = begin.tb_next
        before(kind, error.with_traceback(begin), begin)

    sys.excepthook = hook


def _is_machinery(filename: str, own: set[str]) -> bool:
    return filename in own or filename in (runpy.__file__, "<frozen runpy>")

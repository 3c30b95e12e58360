"""Writes the C source of the extension module kcpsocket._native, from the engine's public headers.

    python glue.py OUTPUT.c HEADER.h ...

The headers are their own cffi declarations: what is left of them without preprocessor lines is all that cffi needs to
know. A header that does not exist is passed over.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

MODULE = "kcpsocket._native"


def declarations(header: Path) -> str:
    """The text of `header` without its preprocessor lines (and the lines that continue them)."""
    kept: list[str] = []
    directive = False
    for line in header.read_text(encoding="utf-8").splitlines():
        directive = line.lstrip().startswith("#") or directive
        kept.append("" if directive else line)
        directive = directive and line.endswith("\\")
    return "\n".join(kept)


def generate(output: Path, headers: list[Path]) -> None:
    """Has cffi write the source of MODULE for `headers` to `output`."""
    ffi = FFI()
    present = [header for header in headers if header.exists()]
    # A type that only the system's headers know, and that ours pass along by pointer.
    ffi.cdef("struct iovec { void *iov_base; size_t iov_len; };")
    for header in present:
        ffi.cdef(declarations(header))
    includes = "".join(f'#include "{header.name}"\n' for header in present)
    ffi.set_source(MODULE, "#include <sys/uio.h>\n" + includes, py_limited_api=True)
    ffi.emit_c_code(str(output))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    generate(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

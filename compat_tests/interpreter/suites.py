"""Which modules of the interpreter's ``test`` package run, and which of their tests take long."""

from __future__ import annotations

import importlib.util

# Every module of the package that opens stream sockets, those that take longest first. One that an interpreter does not
# have (test_asyncore left with Python 3.12, test_telnetlib with 3.13) is passed over.
MODULES: tuple[str, ...] = (
    "test_socket",
    "test_ssl",
    "test_asyncio.test_events",
    "test_imaplib",
    "test_xmlrpc",
    "test_logging",
    "test_selectors",
    "test_asyncio.test_ssl",
    "test_asyncio.test_sock_lowlevel",
    "test_ftplib",
    "_test_multiprocessing",
    "test_socketserver",
    "test_httpservers",
    "test_httplib",
    "test_smtplib",
    "test_smtpd",
    "test_poplib",
    "test_telnetlib",
    "test_urllib2_localnet",
    "test_wsgiref",
    "test_select",
    "test_poll",
    "test_epoll",
    "test_asyncore",
    "test_asynchat",
    "test_asyncio.test_streams",
    "test_asyncio.test_base_events",
    "test_asyncio.test_selector_events",
    "test_asyncio.test_unix_events",
    "test_asyncio.test_server",
    "test_asyncio.test_sendfile",
    "test_asyncio.test_buffered_proto",
    "test_asyncio.test_sslproto",
)

# Of a module that is mostly about something else: the classes, by words in their names, that are about sockets.
CLASSES: dict[str, tuple[str, ...]] = {
    "_test_multiprocessing": (
        "TestConnection",
        "TestListener",
        "TestPicklingConnections",
        "TestWait",
        "OtherTest",
        "TestTimeouts",
    ),
}

# Modules whose tests make no connection between INET streams: they are here for pairs, mocks and closed sockets.
WITHOUT_SESSIONS: frozenset[str] = frozenset(
    {"test_smtpd", "test_select", "test_selectors", "test_poll", "test_asyncio.test_selector_events"}
)

# Tests that take long and are not about stream sockets: the command line runs them, pytest leaves them out.
SLOW: frozenset[str] = frozenset(
    {
        "test.test_socket.ThreadedVSOCKSocketStreamTest.testStream",  # hangs on plain sockets where there is no VSOCK
        "test.test_poll.PollTests.test_poll2",
        "test.test_logging.HandlerTest.test_race",
    }
)


def missing(module: str) -> str | None:
    """Why `module` (``test_socket``) can't run in this interpreter; None: it can."""
    for name in ("test", "test.support"):
        if _find(name) is None:
            return "this interpreter has no test package"
    return None if _find(f"test.{module}") is not None else f"this interpreter has no test.{module}"


def _find(name: str) -> object | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a package that the name goes through
        return None

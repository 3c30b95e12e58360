"""pyftpdlib's FTP servers, anonymous users may write. Arguments: threads, processes or prefork; the directory."""

from __future__ import annotations

import sys

from pyftpdlib import servers
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.log import config_logging

kind, directory = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_anonymous(directory, perm="elradfmwMT")
FTPHandler.authorizer = authorizer
config_logging()
classes = {"threads": servers.ThreadedFTPServer, "processes": servers.MultiprocessFTPServer}
server = classes.get(kind, servers.FTPServer)(("127.0.0.1", 0), FTPHandler)
print("listening on", server.address[1], flush=True)
server.serve_forever(**({"worker_processes": 2} if kind == "prefork" else {}))

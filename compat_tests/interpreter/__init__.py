"""Runs the interpreter's own network test suites twice, on plain sockets and under ``kcpsocket.patch()``, and compares.

Each module of the ``test`` package runs in processes of its own that survive hangs and crashes (`runner`, `child`) and
reach no address but this machine's (`sandbox`). `compare` tells which tests differ, `suites` which modules run.
"""

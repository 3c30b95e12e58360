"""Tests that end in every way that there is: what the harness itself is tested with."""
# ruff: noqa: PT009, PT027 -- these are tests of unittest's kind, not of pytest's

from __future__ import annotations

import os
import socket
import threading
import unittest


class Faulty(unittest.TestCase):
    """In the order of their names: each comes after one that may have cost the process."""

    def test_a_passes(self) -> None:
        self.assertTrue(True)

    def test_b_fails(self) -> None:
        self.fail("on purpose")

    def test_c_crashes(self) -> None:
        os.abort()

    def test_d_exits(self) -> None:
        os._exit(0)

    def test_e_hangs(self) -> None:
        threading.Event().wait()

    def test_f_is_skipped(self) -> None:
        self.skipTest("on purpose")

    def test_g_fails_in_a_part(self) -> None:
        for number in range(2):
            with self.subTest(number=number):
                self.assertEqual(number, 0)

    @unittest.expectedFailure
    def test_h_fails_as_expected(self) -> None:
        self.fail("on purpose")

    @unittest.expectedFailure
    def test_i_succeeds_unexpectedly(self) -> None:
        self.assertTrue(True)

    def test_j_leaves_a_thread_and_a_process(self) -> None:
        threading.Thread(target=threading.Event().wait).start()
        if os.fork() == 0:
            try:
                threading.Event().wait()
            finally:
                os._exit(1)

    def test_k_reaches_this_machine(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            server.accept()[0].close()

    def test_l_reaches_no_other(self) -> None:
        with socket.socket() as client, self.assertRaises(OSError):
            client.connect(("192.0.2.1", 9))
        with self.assertRaises(socket.gaierror):
            socket.getaddrinfo("example.com", 80)


class FaultyFixture(unittest.TestCase):
    """No test of this class ever starts."""

    @classmethod
    def setUpClass(cls) -> None:
        raise RuntimeError("on purpose")

    def test_never_starts(self) -> None:
        self.assertTrue(True)

"""``python -m kcpsocket bench``: how fast it is, here, between two machines and on bad links.

command.py is the command line; its sub-commands are in iperf.py (server, client), local.py, wan.py and codecs.py. What
they measure runs in processes of its own: worker.py (with many.py), link.py, and kcp-go's in compat_tests/benchpeer.
"""

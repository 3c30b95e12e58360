"""Uses the MySQL server with PyMySQL: rows in and out, errors, a server-side cursor. Arguments: host, port."""

from __future__ import annotations

import sys

import pymysql
import pymysql.cursors

LIMIT = 30  # s
settings = {
    "host": sys.argv[1],
    "port": int(sys.argv[2]),
    "user": "u",
    "database": "d",
    "connect_timeout": LIMIT,
    "read_timeout": LIMIT,
    "write_timeout": LIMIT,
}
rows = [(number, f"größe {number} " * 20) for number in range(3000)]

try:
    pymysql.connect(password="wrong", **settings)
    raise AssertionError("let in with a wrong password")
except pymysql.OperationalError as error:
    assert error.args[0] == 1045, error

with pymysql.connect(password="secret", **settings) as connection:
    connection.ping(reconnect=False)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (number INTEGER, text TEXT)")
        assert cursor.executemany("INSERT INTO t VALUES (%s, %s)", rows) == len(rows)
        assert cursor.execute("SELECT number, text FROM t ORDER BY number") == len(rows)
        assert cursor.fetchall() == tuple(rows)
        cursor.execute("SELECT %s, NULL", ("x" * 1_000_000,))
        assert cursor.fetchone() == ("x" * 1_000_000, None)
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("SELECT text FROM t ORDER BY number")
        assert [text for (text,) in cursor] == [text for _, text in rows]
    connection.commit()
    try:
        connection.query("NONSENSE")
    except pymysql.ProgrammingError:
        print("done")

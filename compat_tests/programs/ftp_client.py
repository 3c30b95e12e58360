"""Files to and from an FTP server, data connections opened by either side. Arguments: host, port."""

from __future__ import annotations

import ftplib
import io
import random
import sys

data = random.Random(3).randbytes(1_000_000)
for passive in (True, False):
    with ftplib.FTP(timeout=30.0) as ftp:
        ftp.connect(sys.argv[1], int(sys.argv[2]))
        ftp.login()
        ftp.set_pasv(passive)
        name = f"passive-{passive}"
        ftp.storbinary(f"STOR {name}", io.BytesIO(data))
        assert ftp.size(name) == len(data)
        back = io.BytesIO()
        ftp.retrbinary(f"RETR {name}", back.write)
        assert back.getvalue() == data
        rest = io.BytesIO()
        ftp.retrbinary(f"RETR {name}", rest.write, rest=400_000)
        assert rest.getvalue() == data[400_000:]
        assert name in ftp.nlst()
        ftp.delete(name)
        assert name not in [entry for entry, _ in ftp.mlsd()]
        ftp.quit()
print("done")

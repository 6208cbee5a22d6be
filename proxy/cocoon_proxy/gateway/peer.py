"""Which local user is at the other end of a loopback connection (attack A19: another user of this machine).

Linux tells the owner of every TCP socket in ``/proc/net/tcp``. Where that cannot be read, nothing is known
and a token is the way to keep other users out.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

_TABLES: Final = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
_LOCAL, _REMOTE, _UID = 1, 2, 7


def peer_uid(client: tuple[str, int], server_port: int) -> int | None:
    """User id that owns the client's end of a connection to `server_port` on loopback; None if unknown."""
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return None
    if not address.is_loopback:
        return None
    local, remote = _entry(address, client[1]), f":{server_port:04X}"
    try:
        lines = _TABLES[address.version].read_text(encoding="ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > _UID and fields[_LOCAL] == local and fields[_REMOTE].endswith(remote):
            return int(fields[_UID])
    return None


def is_other_user(client: tuple[str, int], server_port: int, *, uid: int | None = None) -> bool:
    """True if another user of this machine is known to be at the other end.

    The superuser is never "other": who is root can read this process's memory anyway.
    """
    found = peer_uid(client, server_port)
    return found is not None and found not in (0, os.getuid() if uid is None else uid)


def _entry(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    """Address and port as the table writes them: 32-bit words in the machine's own byte order."""
    words = [address.packed[i : i + 4] for i in range(0, len(address.packed), 4)]
    text = "".join(f"{socket.ntohl(int.from_bytes(word)):08X}" for word in words)
    return f"{text}:{port:04X}"

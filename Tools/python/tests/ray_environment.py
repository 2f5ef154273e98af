"""What Ray reads when it is first imported, so import this before it; and a network that has only a loopback.

Nothing leaves the loopback, nothing of a test stays in the home of who runs it, and no other cluster is used.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Named after where it is usual: the machine's own address is then 127.0.0.1, which a driver would else replace.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Workers that give way to everything else take minutes on a busy machine.
    "RAY_worker_niceness": "0",
}
os.environ.pop("RAY_ADDRESS", None)

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


@contextmanager
def loopback_only() -> Iterator[bool]:
    """Moves the calling thread, and what it starts, to a network namespace of a loopback only; says whether it could.

    That takes root, or a process that may become root of a namespace of its own. Elsewhere the network stays as it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        isolated = libc.unshare(_CLONE_NEWNET) == 0
        if isolated:
            _raise_loopback()
        try:
            yield isolated
        finally:
            if isolated and libc.setns(before, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))

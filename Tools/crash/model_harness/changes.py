"""Counts changes below directories while a program runs, so that a kill can be aimed at one of them."""

import ctypes
import os
import select
import struct
import subprocess
import time
from pathlib import Path

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
IN_ISDIR = 0x40000000
WATCHED = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
EVENT = struct.Struct("iIII")
POLL_SECONDS = 0.01


class ChangeCounter:
    """Watches directories through inotify, and directories that appear in them."""

    def __init__(self, folders: list[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        self._folders: dict[int, Path] = {}
        self.count = 0
        for folder in folders:
            self._watch(folder)

    def _watch(self, folder: Path) -> None:
        watch = self._libc.inotify_add_watch(self._file, os.fsencode(folder), WATCHED)
        # A directory may be gone again; then there is nothing to see in it.
        if watch >= 0:
            self._folders[watch] = folder

    def _take(self) -> None:
        """Counts the changes that have been reported until now."""
        try:
            content = os.read(self._file, 1 << 16)
        except BlockingIOError:
            return
        position = 0
        while position < len(content):
            watch, mask, _, length = EVENT.unpack_from(content, position)
            name = content[position + EVENT.size : position + EVENT.size + length].rstrip(b"\0")
            position += EVENT.size + length
            self.count += 1
            if mask & IN_ISDIR and mask & (IN_CREATE | IN_MOVED_TO):
                self._watch(self._folders[watch] / os.fsdecode(name))

    def wait(self, process: subprocess.Popen[bytes], changes: int, seconds: float) -> bool:
        """True after that many changes, False if the process ends or the time is over before."""
        deadline = time.monotonic() + seconds
        while self.count < changes:
            ended = process.poll() is not None
            select.select([self._file], [], [], 0 if ended else POLL_SECONDS)
            self._take()
            if ended or time.monotonic() > deadline:
                return self.count >= changes and not ended
        return True

    def close(self) -> None:
        """Ends the watching."""
        os.close(self._file)

"""Starts one process and reports on it: launch.py DESCRIPTOR COMMAND...

The peak memory that the kernel reports for a process includes the memory of whoever started it, from before it became
a program of its own. So whoever measures must be small: this file imports next to nothing and is run by an isolated
interpreter.
Writes "exit-code seconds processor-seconds peak-KiB" to the file descriptor.
"""

import os
import sys
import time

if __name__ == "__main__":
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    command = sys.argv[2:]
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    os.write(report, f"{code} {seconds} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}".encode())

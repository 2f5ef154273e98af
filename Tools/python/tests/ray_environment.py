"""What Ray reads when it is first imported: import this before it.

Nothing leaves the loopback, nothing of a test stays in the home of who runs it, and no other cluster is used.
"""

import os

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Named after where it is usual: the machine's own address is then 127.0.0.1, which a driver would else replace.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
os.environ.pop("RAY_ADDRESS", None)

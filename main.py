"""`uvicorn main:app --http runway.http_server.protocol:BoundedHttpProtocol --ws none` serves Runway.

Without these options uvicorn bounds neither the head of a request nor what a connection holds (docs/operations.md).

The kernel drops a signal that PID 1 has no handler for, and the server sets up its own only after this import, which
takes more than a second. So until then SIGTERM simply ends the process: nothing has begun that could be drained.
https://man7.org/linux/man-pages/man7/pid_namespaces.7.html
"""

import signal
import sys
import threading

unhandled = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
if unhandled:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

from runway.app import create  # noqa: E402 (after the handler is in place)

app = create()

if unhandled:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""The ASGI app: `uvicorn main:app --http runway.http_server.protocol:BoundedHttpProtocol --ws none`.

Without these options uvicorn bounds neither the head of a request nor a connection (docs/operations.md).
"""

from runway.app import create

app = create()

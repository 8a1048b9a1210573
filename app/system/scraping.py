"""The port for metrics: one page, for those who shall see nothing else."""

from typing import Any

from app.telemetry.export import MetricsPage

PATH = "/metrics"


class MetricsAlone:
    """An ASGI application that answers ``GET /metrics``."""

    def __init__(self, page: MetricsPage) -> None:
        self._page = page

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, body, kind = 404, b"Only /metrics is here.\n", "text/plain; charset=utf-8"
        if scope["path"] == PATH and scope["method"] in {"GET", "HEAD"}:
            accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
            body, kind = await self._page.render(accept)
            status = 200
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

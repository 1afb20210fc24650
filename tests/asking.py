"""Requests to an application without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp


def ask(app: ASGIApp, path: str, method: str = "GET", host: str = "127.0.0.1", **more: Any) -> httpx.Response:
    """What the application answers; `more` is as of `httpx.request`."""

    async def now() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headers = {"host": host, **more.pop("headers", {})}
            return await client.request(method, path, headers=headers, **more)

    return asyncio.run(now())

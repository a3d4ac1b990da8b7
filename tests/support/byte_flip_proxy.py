"""A front before a gateway or a Kubo node that changes one byte of what is read."""

from __future__ import annotations

import aiohttp
from aiohttp import web


class Flipping:
    """A server that passes requests on to `real`; with `at` set, the byte there is flipped."""

    def __init__(self, real: str) -> None:
        self.real, self.flipped = real, 0
        self.at: int | None = None
        self.app = web.Application(client_max_size=1 << 30)
        self.app.router.add_route("*", "/{path:.*}", self.pass_on)

    async def pass_on(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": request.headers.get("Content-Type", "")}
        url, body = self.real + request.raw_path, await request.read()
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=body, headers=headers) as answer,
        ):
            data = bytearray(await answer.read())
        reading = request.path.startswith(("/raw/", "/api/v0/cat"))
        if self.at is not None and reading and answer.status == 200:
            data[self.at % len(data)] ^= 1
            self.flipped += 1
        return web.Response(status=answer.status, body=bytes(data))

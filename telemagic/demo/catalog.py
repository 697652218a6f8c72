"""The shop's catalog: a small JSON service, quick enough to measure transfers with."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final

import uvloop
from aiohttp import web

from telemagic.demo import seed, tally

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK: Final = bytes(range(256)) * 1024  # 256 KiB; the bytes of /bytes/N are this pattern over and over
_READ: Final = 256 * 1024  # bytes
_LARGEST_ECHO: Final = 64 * 1024 * 1024  # bytes, of /echo; /echo?stream has no limit
_LONGEST_WAIT: Final = 300.0  # seconds, of /slow


def products() -> list[dict[str, Any]]:
    """Return the products as records."""
    return [
        {"id": number, "name": name, "category": category, "price": price}
        for number, name, category, price in seed.PRODUCTS
    ]


async def _list_products(_request: web.Request) -> web.Response:
    return web.json_response(products())


async def _one_product(request: web.Request) -> web.Response:
    wanted = int(request.match_info["id"])
    for product in products():
        if product["id"] == wanted:
            return web.json_response(product)
    return web.json_response({"error": f"no product {wanted}"}, status=404)


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _echo(request: web.Request) -> web.StreamResponse:
    if "stream" not in request.query:
        # Most clients send everything before they read, so answering early would make both sides wait for good.
        return web.Response(body=await request.read(), content_type="application/octet-stream")
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if request.content_length is not None:
        response.content_length = request.content_length
    await response.prepare(request)
    async for block in request.content.iter_any():
        await response.write(block)
    return response


async def _bytes(request: web.Request) -> web.StreamResponse:
    left = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = left
    await response.prepare(request)
    while left > 0:
        await response.write(memoryview(_BLOCK)[:left])
        left -= len(_BLOCK)
    return response


async def _sink(request: web.Request) -> web.Response:
    digest = hashlib.sha256()
    count = 0
    async for block in request.content.iter_any():
        digest.update(block)
        count += len(block)
    return web.json_response({"count": count, "sha256": digest.hexdigest()})


async def _slow(request: web.Request) -> web.Response:
    try:
        seconds = float(request.query.get("seconds", "1"))
    except ValueError:
        return web.json_response({"error": "seconds is not a number"}, status=400)
    await asyncio.sleep(min(max(seconds, 0.0), _LONGEST_WAIT))
    return web.json_response({"slept": seconds})


async def serve(port: int, tally_port: int) -> None:
    """Serve until cancelled; prints ``ready`` once the port is open."""
    app = web.Application(client_max_size=_LARGEST_ECHO)
    app.router.add_get("/products", _list_products)
    app.router.add_get(r"/products/{id:\d+}", _one_product)
    app.router.add_get("/health", _health)
    app.router.add_post("/echo", _echo)
    app.router.add_get(r"/bytes/{count:\d+}", _bytes)
    app.router.add_post("/sink", _sink)
    app.router.add_get("/slow", _slow)
    runner = web.AppRunner(app, access_log=None, read_bufsize=_READ, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()  # all addresses of its own pod, of both families
    counter = await tally.start(tally_port)
    print(f"ready http={port} tally={tally_port}", flush=True)  # noqa: T201 - the kubelet waits for this line
    try:
        await asyncio.Event().wait()
    finally:
        counter.close()
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the service."""
    parser = argparse.ArgumentParser(prog="python -m telemagic.demo.catalog", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tally-port", type=int, default=7000)
    options = parser.parse_args(arguments)
    uvloop.run(serve(options.port, options.tally_port))


if __name__ == "__main__":
    main()

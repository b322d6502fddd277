"""The server behind the page: a few fixed addresses, no file of the machine, no request from another site."""
from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dassl.utils import UserError
from tools.labs import is_loopback
from tools.labs.serve import upload
from tools.runs.folder import RunFolder

HERE = Path(__file__).resolve().parent
PACKAGES = ("starlette", "uvicorn")
_PAGE = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
         "/page.css": ("page.css", "text/css"), "/icon.svg": ("icon.svg", "image/svg+xml")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}
_UPLOAD_SECONDS = 60
_AT_ONCE = 32                           # connections; more are asked to come back
_LISTS, _EXAMPLES = 4, 3                # lists of other class names that are kept ready; images to try


def application(make: Callable, topk: int = 5, hosts: tuple[str, ...] | None = None):
    """The ASGI application.

    Args:
        make: class names, () for those of the run, to a `tools.prediction.classifier.Classifier`; raises UserError.
        topk: classes to name.
        hosts: names under which it may be called, lower case; None: any. Otherwise a page of another site could reach
            it under a name of its own.
    """
    import asyncio

    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    one_at_a_time, make = threading.Lock(), lru_cache(maxsize=_LISTS)(make)
    first = make(())
    examples = _examples(first.facts["run"]) if hosts is not None else []

    def look(content: bytes, names: tuple[str, ...]) -> dict:
        with one_at_a_time:
            image = upload.decode(content)
            try:
                classifier = make(names)
            except UserError as error:
                raise upload.Refused(422, str(error)) from error
            start = time.monotonic()
            top = classifier.predict(image, topk)[0].as_dict()["top"]
        return {"top": top, "width": image.width, "height": image.height,
                "seconds": round(time.monotonic() - start, 4)}

    async def body(request: Request) -> bytes:
        content = bytearray()
        if int(request.headers.get("content-length") or 0) > upload.MAX_BYTES:
            raise upload.too_many_bytes()
        async for piece in request.stream():
            content += piece
            if len(content) > upload.MAX_BYTES:
                raise upload.too_many_bytes()
        return bytes(content)

    async def predict(request: Request) -> Response:
        try:
            _same_site(request)
            names = unquote(request.headers.get("x-classes", ""))
            return JSONResponse(await run_in_threadpool(
                look, await asyncio.wait_for(body(request), _UPLOAD_SECONDS), tuple(
                    name for part in names.split(",") if (name := part.strip()))))
        except upload.Refused as error:
            return JSONResponse({"error": str(error)}, error.status)
        except (asyncio.TimeoutError, ClientDisconnect):
            return JSONResponse({"error": "The upload was cut."}, 400)

    async def about(request: Request) -> Response:
        facts = {key: first.facts[key] for key in ("trainer", "dataset", "backbone", "accuracy")}
        if first.facts["classes"] != "the run's":           # that accuracy was of its own classes
            facts["accuracy"] = None
        facts["backbone"] = Path(facts["backbone"]).name if Path(facts["backbone"]).is_file() else facts["backbone"]
        return JSONResponse({**facts, "classes": first.classnames, "local": hosts is not None, "max_bytes":
                             upload.MAX_BYTES, "formats": upload.FORMATS, "examples": len(examples)})

    async def example(request: Request) -> Response:
        number = request.path_params["number"]
        return Response(examples[number], media_type="image/png") if number < len(examples) else Response("", 404)

    def fixed(name: str, kind: str):
        content = (HERE / name).read_bytes()

        async def send(request: Request) -> Response:
            return Response(content, media_type=kind)
        return send

    routes = [Route(path, fixed(*file)) for path, file in _PAGE.items()]
    app = Starlette(routes=[*routes, Route("/about", about), Route("/example/{number:int}", example),
                            Route("/predict", predict, methods=["POST"])])

    async def guarded(scope, receive, send):
        async def with_headers(message):
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        if scope["type"] == "http" and hosts is not None:
            headers = dict(scope["headers"])
            host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname          # without port
            if (host or "").lower() not in hosts:
                refusal = Response("This page answers under this machine's own name only.", 421)
                await refusal(scope, receive, with_headers)
                return
        await app(scope, receive, with_headers if scope["type"] == "http" else send)

    return guarded


def _examples(run: str) -> list[bytes]:
    """Up to three of the images that the run was tested on, of different classes, as PNG; [] where they are gone."""
    found: dict[str, bytes] = {}
    for path, label, _ in RunFolder(run).answers if run else ():
        if label not in found and len(found) < _EXAMPLES and Path(path).is_file():
            with contextlib.suppress(upload.Refused, OSError):
                png = io.BytesIO()
                upload.decode(Path(path).read_bytes()).save(png, "PNG")
                found[label] = png.getvalue()
    return list(found.values())


def _same_site(request) -> None:
    """Raises Refused for a request that another site's page may send without asking."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise upload.Refused(403, "Only this page itself may send images.")
    if not request.headers.get("content-type", "").startswith(("image/", "application/octet-stream")):
        raise upload.Refused(415, "An image is sent as it is, with its type (image/...).")


def serve(make_classifier: Callable, args) -> int:
    """Show the page until Ctrl-C. `make_classifier`: see `application`; `args`: host, port, topk, images. Returns 0."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"--serve needs {' and '.join(missing)}: pip install {' '.join(missing)}, or "
                        "pip install -e \".[serve]\" in the checkout.")
    if args.images:
        raise UserError(f"--serve takes its images from the page; leave {args.images[0]} out.")
    if args.topk < 1:
        raise UserError(f"--topk, the number of classes to name, must be at least 1, got {args.topk}.")
    import uvicorn

    place = bound(args.host, args.port)
    with place:
        local = is_loopback(args.host)
        if not local:
            print(f"Warning: everybody who can reach {args.host} can use this page and sees the class names. There is "
                  "no password and no encryption.", file=sys.stderr)
        hosts = ("localhost", "127.0.0.1", "::1", args.host.lower()) if local else None
        app = application(make_classifier, args.topk, hosts)
        shown = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{shown}:{place.getsockname()[1]}  (Ctrl-C ends)", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off",
                                limit_concurrency=_AT_ONCE, timeout_graceful_shutdown=3)
        with contextlib.suppress(KeyboardInterrupt):         # what uvicorn hands on after it has shut down
            uvicorn.Server(config).run(sockets=[place])
    return 0


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError for an address that cannot be had."""
    if not 0 <= port < 2 ** 16:
        raise UserError(f"The port must be 0 (any free one) to 65535, got {port}.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise UserError(f"The page cannot be shown at {host}, port {port} ({error.strerror or error}). Give another "
                        "--port, or --port 0 for a free one.") from error

"""A web server on this machine for tests of downloads, and archives to serve."""
import hashlib
import http.server
import io
import tarfile
import threading
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files with Range; the first server.cuts replies end after half of what they announce."""

    def do_GET(self):
        body, kind = self.server.files.get(self.path, (None, ""))
        if body is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range") if self.server.ranges else None
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        start, stop = int(first), int(last) + 1 if last else len(body)
        self.server.starts.append(start)
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        rest = body[start:stop]
        self.send_response(206 if start or last else 200)
        self.send_header("Content-Range", f"bytes {start}-{start + len(rest) - 1}/{len(body)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            rest = rest[:len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A server whose `files` {path: (content, type)} can be filled; `starts` are the bytes that were asked from."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.starts, server.cuts, server.ranges = {}, [], 0, True
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.handle_error = lambda *_: None            # a client may hang up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def tar(**files) -> bytes:
    """A tar.gz of {name: bytes}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))

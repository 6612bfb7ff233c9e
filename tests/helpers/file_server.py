"""A small HTTP server of files, which can misbehave as real ones do."""

import email.utils
import http.server
import threading
from contextlib import contextmanager


class Page:
    """What the server answers for a path.

    Attributes:
        body: bytes.
        status: HTTP status.
        headers: dict of further headers; a value of None leaves a usual one out.
        last_modified: seconds since 1970; None sends no such header.
        breaks_off: end the connection in the middle of the body.
        before_body: a function that is called before the body is sent.
    """

    def __init__(self, body=b"", status=200, headers=(), last_modified=1e9, **options):
        self.body, self.status, self.headers = body, status, dict(headers)
        self.last_modified = last_modified
        self.breaks_off = options.get("breaks_off", False)
        self.before_body = options.get("before_body", lambda: None)


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `pages`, a dict from path to `Page`.

    `log` lists the status and the path of each answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages, self.log = {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        page = self.server.pages.get(self.path, Page(b"no such file", status=404))
        etag = page.headers.get("ETag")
        unchanged = etag and self.headers.get("If-None-Match") == etag
        # As Python's own server does: also for a newer request of an older file.
        since = self.headers.get("If-Modified-Since")
        if since and page.last_modified is not None:
            seconds = email.utils.parsedate_to_datetime(since).timestamp()
            unchanged = unchanged or int(page.last_modified) <= seconds
        status = 304 if unchanged else page.status
        body = b"" if unchanged else page.body
        headers = {"Content-Length": str(len(body))}
        if page.last_modified is not None:
            headers["Last-Modified"] = email.utils.formatdate(
                page.last_modified, usegmt=True
            )
        headers |= page.headers
        self.server.log.append((status, self.path))
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        if headers["Content-Length"] is None:
            self.send_header("Connection", "close")
        self.end_headers()
        page.before_body()
        self.wfile.write(body[: len(body) // 2] if page.breaks_off else body)
        if page.breaks_off or headers["Content-Length"] is None:
            self.close_connection = True

    def log_message(self, *arguments):
        pass


@contextmanager
def serving():
    """Yields a running `FileServer`."""
    with FileServer() as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

"""Fetching a file from an http(s) address: one request, checked before it is kept."""

import hashlib
from contextlib import contextmanager
from typing import NamedTuple

import requests

from valohai_step.outputs import progress_bar

TIMEOUT = 60  # Seconds without an answer, or without the next bytes.
_CHUNK = 1 << 20
# How a file with an extension starts; an archive may be of another kind than it says.
_ARCHIVE = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_STARTS = dict.fromkeys(("zip", "gz", "tgz", "bz2", "xz"), _ARCHIVE)


class UnreachableError(Exception):
    """There is no answer from the server, or only that it cannot answer now."""


class RefusedError(Exception):
    """The server has answered, but not with a whole file of the expected content."""


class Version(NamedTuple):
    """What a server says about the file behind an address; empty where it is silent.

    Attributes:
        etag: its entity tag.
        last_modified: time of the last change, in the server's words.
        num_bytes: its size, as a text.
    """

    etag: str
    last_modified: str
    num_bytes: str


@contextmanager
def open_address(url, etag=""):
    """Sends a request; yields the `requests.Response`, its body not yet read.

    Args:
        url: of the file; redirects are followed.
        etag: of the version that is in the cache: the status is 304 if it still is the
            present one. There is no `If-Modified-Since`: servers answer 304 to it for
            every file that is not newer, also for an older one put in its place.

    Raises:
        UnreachableError: the server does not answer.
        RefusedError: the server has no such file, or does not give it away.
    """
    # A file that is compressed on the way comes without its size.
    headers = {"Accept-Encoding": "identity"}
    if etag:
        headers["If-None-Match"] = etag
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.Timeout as error:
        raise UnreachableError(f"no answer in {TIMEOUT} s") from error
    except (requests.RequestException, ValueError) as error:
        # Some malformed addresses are a ValueError of another package.
        raise UnreachableError(_find_cause(error)) from error
    with response:
        status = response.status_code
        words = f"HTTP status {status} {response.reason or ''}".rstrip()
        if status >= 500 or status == 429:
            raise UnreachableError(words)
        if status != 200 and not (status == 304 and etag):
            raise RefusedError(words)
        yield response


def _find_cause(error):
    """Returns the message of the innermost error, without the objects named in it."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, Exception):
            inner = error.args[0] if error.args else None
        if not isinstance(inner, Exception):
            break
        error = inner
    text = " ".join(str(error).split())
    if text.startswith(("HTTPConnection(", "HTTPSConnection(", "<")):
        text = text.partition(": ")[2]
    return text or type(error).__name__


def read_version(response):
    """Returns the `Version` of a response.

    It is empty where nobody can know whether the body is complete: such a file must be
    fetched each time.
    """
    headers = response.headers
    is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    if "Content-Length" not in headers and not is_chunked:
        return Version("", "", "")
    return Version(
        headers.get("ETag", ""),
        headers.get("Last-Modified", ""),
        headers.get("Content-Length", ""),
    )


def is_unchanged(response, known):
    """Whether a response is for the version `known`; False where nobody can tell."""
    if response.status_code == 304:
        return True
    found = read_version(response)
    if known.etag or found.etag:
        return known.etag == found.etag
    return bool(found.last_modified and found.num_bytes) and found == known


def save_body(response, path, file_name, num_bytes=None, checksums=None):
    """Writes the body of a response to a file, and checks it.

    Args:
        response: of `open_address`.
        path: of the file to write.
        file_name: name of the file in its address; an archive must start like one.
        num_bytes: expected size, where it is known.
        checksums: dict from an algorithm of `hashlib` to the expected digest in hex.

    Returns:
        The number of bytes written.

    Raises:
        RefusedError: the body is incomplete, a web page, or not the expected one.
        OSError: the file cannot be written.
    """
    is_encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    length = response.headers.get("Content-Length", "")
    # The size is that of the compressed body, which `requests` decompresses.
    total = int(length) if length.isdecimal() and not is_encoded else None
    digests = {name: hashlib.new(name) for name in checksums or {}}
    head, written = b"", 0
    with (
        path.open("wb") as file,
        progress_bar(total=total, unit="B", unit_scale=True, leave=False) as bar,
    ):
        for chunk in _read_chunks(response):
            head = (head + chunk)[:1024] if len(head) < 1024 else head
            written += len(chunk)
            for digest in digests.values():
                digest.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
    if _is_web_page(head):
        raise RefusedError(
            "a web page came in place of the file; does the address need a login, or "
            "was the file moved?"
        )
    for expected in (total, num_bytes):
        if expected is not None and written != expected:
            raise RefusedError(f"expected {expected:,} bytes, got {written:,}")
    extension = file_name.rpartition(".")[2].lower()
    if not head.startswith(_STARTS.get(extension, b"")):
        raise RefusedError(
            f"expected an archive, as {file_name} says, got {written:,} bytes starting "
            f"with {head[:20]!r}"
        )
    for name, digest in digests.items():
        if digest.hexdigest() != checksums[name]:
            raise RefusedError(
                f"expected the {name} checksum {checksums[name]}, got "
                f"{digest.hexdigest()}"
            )
    return written


def _read_chunks(response):
    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise RefusedError(f"the transfer broke off ({_find_cause(error)})") from error


def _is_web_page(head):
    """Whether a file begins as HTML does. No input of a step is HTML."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html")) or (
        text.startswith((b"<!--", b"<?xml")) and b"<html" in text
    )

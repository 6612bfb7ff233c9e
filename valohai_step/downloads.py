"""The cache of downloaded files: each one is fetched once per version.

    <folder>/<id of the address>/images.zip       the file
    <folder>/<id of the address>/.download.json   when it was fetched, and which version

Each run asks the server whether the file has changed, except where the caller knows its
content. Two processes may download at the same time: one waits for the other where the
system has file locks (`fcntl`, so not on Windows). Elsewhere both download, each into a
partial file of its own, and the last one stays.
"""

import json
import time
import urllib.parse
import urllib.request
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from absl import logging

from valohai_step import fetching
from yolov3_tf2.errors import InputError

_INFO = ".download.json"


class _Copy(NamedTuple):
    """The file of an address in the cache.

    Attributes:
        path: of the file.
        fetched: when it was fetched, a text.
        version: the `fetching.Version` that the server gave it.
    """

    path: Path
    fetched: str
    version: fetching.Version

    def __str__(self):
        return f"fetched on {self.fetched}: {self.path}"


def download(url, folder, option, *, mirrors=(), num_bytes=None, checksums=None):
    """Downloads a file, unless its present version is in the cache.

    Args:
        url: of the file.
        folder: of the cache, a `pathlib.Path`; created if it is missing.
        option: how to give your own file instead, such as `--images`, for errors.
        mirrors: further addresses of the same file, tried one after the other.
        num_bytes: size of the file, where it is known.
        checksums: dict from an algorithm of `hashlib` to the digest of the file in hex,
            where it is known. Its copy in the cache is then used without a request.

    Returns:
        The path of the file; its name is that of the URL.

    Raises:
        InputError: it cannot be downloaded, or is not the expected file.
        OSError: the cache cannot be written.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "file":
        return _find_local(url, option)
    if scheme not in ("http", "https"):
        raise InputError(
            f"{url}: expected a file or an http:// or https:// address, got "
            f"{scheme}://, which only Valohai can open; download the file from there "
            f"and give it with {option}."
        )
    try:
        name = _name_file(url)
    except ValueError as error:
        raise InputError(f"{url}: expected an address, got {error}.") from error
    path = folder / uuid.uuid5(uuid.NAMESPACE_URL, url).hex / name
    with _writing(path, url):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.parent, url) as is_locked:
        if is_locked:
            for partial in path.parent.glob(".partial-*"):
                with suppress(OSError):
                    partial.unlink()  # From a process that was killed.
        copy = _read_copy(path)
        if copy and (num_bytes or checksums):
            logging.info("%s: from cache, %s", hide_query(url), copy)
            return path
        failures = []
        for address in (url, *mirrors):
            if failures:
                logging.warning("%s; trying %s", failures[-1], hide_query(address))
            try:
                _update(path, copy, address, num_bytes, checksums)
                return path
            except (fetching.UnreachableError, fetching.RefusedError) as error:
                failures.append(f"{hide_query(address)} cannot be downloaded ({error})")
                if copy and isinstance(error, fetching.UnreachableError):
                    logging.warning("%s; from cache, %s", failures[-1], copy)
                    return path
    message = f"{'; '.join(failures)}; give your own file with {option}"
    if copy:
        message += f", such as the one in the cache, {copy}"
    raise InputError(f"{message}.")


def hide_query(url):
    """Returns an address for a log, without a password or a signature in it."""
    parts = urllib.parse.urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{shown}?…" if parts.query else shown


def format_size(num_bytes):
    """Returns a number of bytes in a readable form.

    Example:
        >>> format_size(35_434_956)
        '35.4 MB'
    """
    size = num_bytes
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.{0 if unit == 'bytes' else 1}f} {unit}"


def _name_file(url):
    """Returns a file name for the file of an address."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    # An encoded slash would be a folder, and a leading dot one of the cache's files.
    return name.replace("/", "_").replace("\\", "_").lstrip(".") or "download"


def _find_local(url, option):
    """Returns the path of a `file://` address."""
    parts = urllib.parse.urlsplit(url)
    path = Path(urllib.request.url2pathname(parts.path))
    if not path.is_file():
        raise InputError(
            f"{url}: expected a file, got {path}, which does not exist; give the path "
            f"of one with {option}."
        )
    return path


def _update(path, copy, url, num_bytes, checksums):
    """Fetches the file of an address to `path`, unless it is the one in the cache.

    Raises:
        UnreachableError, RefusedError: see `fetching`.
    """
    shown = hide_query(url)
    start = time.monotonic()
    with fetching.open_address(url, copy.version.etag if copy else "") as response:
        if copy and fetching.is_unchanged(response, copy.version):
            logging.info("%s: unchanged, from cache, %s", shown, copy)
            return
        if copy:
            is_known = copy.version.etag or copy.version.last_modified
            why = "has changed" if is_known else "may have changed"
            logging.info("%s %s since %s", shown, why, copy.fetched)
        logging.info("downloading %s", shown)
        partial = path.with_name(f".partial-{uuid.uuid4().hex}")
        try:
            with _writing(path, url):
                size = fetching.save_body(
                    response, partial, path.name, num_bytes, checksums
                )
                # In this order a file is never taken for another version.
                path.with_name(_INFO).unlink(missing_ok=True)
                partial.replace(path)
                _write_info(path, size, fetching.read_version(response))
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    logging.info("downloaded %s in %.1f s: %s", format_size(size), seconds, path)


def _write_info(path, size, version):
    info = {
        "size": size,
        "fetched": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **version._asdict(),
    }
    partial = path.with_name(f".partial-{uuid.uuid4().hex}")
    partial.write_text(json.dumps(info), encoding="utf-8")
    partial.replace(path.with_name(_INFO))


def _read_copy(path):
    """Returns the `_Copy` of a file in the cache; None if there is no whole one."""
    try:
        info = json.loads(path.with_name(_INFO).read_text(encoding="utf-8"))
        version = fetching.Version(*(info[each] for each in fetching.Version._fields))
        if path.stat().st_size == info["size"]:
            return _Copy(path, info["fetched"], version)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Also a file of an earlier version of this project, never checked.
    return None


@contextmanager
def _lock(folder, url):
    """Waits until no other process downloads into a folder; yields whether it is sure.

    The lock ends with the process, however that ends.
    """
    with _open_lock(folder) as file:
        yield bool(file) and _acquire(file, url)


@contextmanager
def _open_lock(folder):
    try:
        file = (folder / ".lock").open("ab")
    except OSError:  # A cache that can only be read.
        file = None
    try:
        yield file
    finally:
        if file:
            file.close()


def _acquire(file, url):
    try:
        import fcntl
    except ImportError:  # Windows.
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        shown = hide_query(url)
        logging.info("waiting for another process that downloads %s", shown)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # A disk without locks.
        return False
    return True


@contextmanager
def _writing(path, url):
    """Makes an `OSError` name a file of the cache, and its address."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} cannot be written: {error.strerror or error}; it is to keep the "
            f"download of {hide_query(url)}."
        ) from error

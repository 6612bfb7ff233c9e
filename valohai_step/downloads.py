"""Downloading files: each one once, and never partially."""

import http.client
import urllib.error
import urllib.request
import uuid

from valohai_step.outputs import progress_bar
from yolov3_tf2.errors import InputError


def download(url, folder, option):
    """Downloads a file, unless an earlier call has done so.

    Args:
        url: of the file.
        folder: where downloads are kept, a `pathlib.Path`; created if it is missing.
        option: how to give your own file instead, for the error.

    Returns:
        The path of the file; its name is that of the URL.

    Raises:
        InputError: it cannot be downloaded.
    """
    scheme = url.partition("://")[0]
    if scheme not in ("http", "https", "file"):
        raise InputError(
            f"{url}: expected a file or an http:// or https:// address, got "
            f"{scheme}://, which only Valohai can open; download the file from there "
            f"and give it with {option}."
        )
    folder = folder / uuid.uuid5(uuid.NAMESPACE_URL, url).hex
    path = folder / (url.partition("?")[0].rpartition("/")[2] or "download")
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    print(f"downloading {url}", flush=True)
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as response,
            partial.open("wb") as file,
            progress_bar(
                total=int(response.headers.get("Content-Length") or 0) or None,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
            if bar.total and bar.n != bar.total:
                raise urllib.error.URLError(f"got {bar.n:,} of {bar.total:,} bytes")
    except (OSError, ValueError, http.client.HTTPException) as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{url} cannot be downloaded ({error}); give your own file with {option}."
        ) from error
    partial.rename(path)
    return path

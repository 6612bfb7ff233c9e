"""Downloads: checked before they are kept, fetched again when they have changed."""

import gzip
import hashlib
import subprocess
import sys
import threading

import pytest
from absl import logging
from file_server import Page, serving
from project import REPOSITORY

from valohai_step import downloads, fetching
from yolov3_tf2.errors import InputError

WEB_PAGE = b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>"


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def fetch(server, tmp_path, caplog):
    """Downloads a path of the server; returns the path of the file."""
    caplog.set_level("INFO", logger=logging.get_absl_logger().name)

    def run(path="/images.bin", **options):
        caplog.clear()
        url = server.url + path
        return downloads.download(url, tmp_path / "cache", "--images FILE", **options)

    return run


def left_in_cache(tmp_path):
    """The names of the files in the cache, without the lock and the notes on them."""
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    return sorted(p.name for p in files if p.name not in (".lock", ".download.json"))


def test_an_unchanged_file_is_taken_from_the_cache(fetch, server, tmp_path, caplog):
    server.pages["/images.bin"] = Page(b"first")
    path = fetch()
    assert path.name == "images.bin" and path.read_bytes() == b"first"
    assert f"downloading {server.url}/images.bin" in caplog.text
    assert fetch() == path and path.read_bytes() == b"first"
    assert "unchanged, from cache, fetched on 20" in caplog.text
    assert str(path) in caplog.text and "downloading" not in caplog.text
    assert left_in_cache(tmp_path) == ["images.bin"]


def test_an_unchanged_file_is_not_sent_again_where_it_has_an_etag(fetch, server):
    server.pages["/images.bin"] = Page(b"first", headers={"ETag": '"1"'})
    fetch()
    assert fetch().read_bytes() == b"first"
    assert [status for status, _ in server.log] == [200, 304]
    server.pages["/images.bin"] = Page(b"other", headers={"ETag": '"2"'})
    assert fetch().read_bytes() == b"other"


@pytest.mark.parametrize(
    "changed",
    [
        # Of the same second, as files unpacked together are, and of an earlier one.
        Page(b"second version"),
        Page(b"other", last_modified=9e8),
        Page(b"other", last_modified=2e9),
        Page(b"other", last_modified=None),
        Page(b"other", headers={"ETag": '"1"'}),
    ],
)
def test_a_changed_file_is_downloaded_again(fetch, server, caplog, changed):
    server.pages["/images.bin"] = Page(b"first")
    fetch()
    server.pages["/images.bin"] = changed
    assert fetch().read_bytes() == changed.body
    assert "/images.bin has changed since 20" in caplog.text


def test_a_file_of_which_nobody_knows_whether_it_has_changed(fetch, server, caplog):
    server.pages["/images.bin"] = Page(b"first", last_modified=None)
    fetch()
    server.pages["/images.bin"] = Page(b"other", last_modified=None)
    assert fetch().read_bytes() == b"other"
    assert "/images.bin may have changed since 20" in caplog.text


@pytest.mark.parametrize("status", [500, 503, 429, "stopped", "slow"])
def test_the_cache_serves_where_the_server_cannot(
    fetch, server, caplog, monkeypatch, status
):
    server.pages["/images.bin"] = Page(b"first")
    path = fetch()
    released = threading.Event()
    if status == "stopped":
        server.shutdown()
        server.server_close()
    elif status == "slow":
        monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
        server.pages["/images.bin"] = slow = Page(b"first")
        # The answer's head, too, comes late.
        slow.headers = _LateHeaders(released)
    else:
        server.pages["/images.bin"] = Page(b"busy", status=status)
    assert fetch() == path and path.read_bytes() == b"first"
    released.set()
    (line,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert line.startswith(f"{server.url}/images.bin cannot be downloaded (")
    assert f"from cache, fetched on 20{line.partition('fetched on 20')[2]}" in line
    assert str(path) in line


class _LateHeaders(dict):
    """Headers that are not known before an event."""

    def __init__(self, event):
        super().__init__()
        self._event = event

    def get(self, *arguments):
        self._event.wait(20)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (Page(WEB_PAGE), "a web page came in place of the file"),
        (Page(b"\xef\xbb\xbf<html><p>moved</p></html>"), "a web page came in place"),
        (Page(b"<!-- x --><html></html>"), "a web page came in place of the file"),
        (Page(b"gone", status=404), "HTTP status 404 Not Found"),
        (Page(b"no", status=403), "HTTP status 403 Forbidden"),
        (Page(b"busy", status=500), "HTTP status 500 Internal Server Error"),
        (Page(b"x" * 5000, breaks_off=True), "the transfer broke off"),
        (Page(b"", status=204), "HTTP status 204 No Content"),
    ],
)
def test_what_is_not_kept(fetch, server, tmp_path, page, words):
    server.pages["/images.bin"] = page
    with pytest.raises(InputError) as caught:
        fetch()
    message = str(caught.value)
    assert message.startswith(f"{server.url}/images.bin cannot be downloaded (")
    assert words in message and "--images FILE" in message and "\n" not in message
    assert left_in_cache(tmp_path) == []
    server.pages["/images.bin"] = Page(b"right")  # There is a way out.
    assert fetch().read_bytes() == b"right"


def test_a_web_page_in_place_of_a_newer_file_names_the_copy(fetch, server):
    server.pages["/images.bin"] = Page(b"first")
    path = fetch()
    for page in (Page(WEB_PAGE, last_modified=None), Page(b"gone", status=404)):
        server.pages["/images.bin"] = page
        with pytest.raises(InputError) as caught:
            fetch()
        assert str(path) in str(caught.value)
        assert path.read_bytes() == b"first"


def test_annotations_are_no_web_page(fetch, server):
    for text in (b"<annotation><size/></annotation>", b'<?xml version="1.0"?><a/>'):
        server.pages["/a.xml"] = Page(text)
        assert fetch("/a.xml").read_bytes() == text


def test_a_file_that_an_earlier_version_left_in_the_cache(fetch, server):
    server.pages["/images.bin"] = Page(b"right")
    path = fetch()
    path.with_name(".download.json").unlink()
    path.write_bytes(WEB_PAGE)
    path.with_name(".partial-images.bin").write_bytes(b"left by a killed process")
    assert fetch().read_bytes() == b"right"
    names = {each.name for each in path.parent.iterdir()}
    assert names == {"images.bin", ".download.json", ".lock"}


def test_a_deleted_or_shortened_file_is_downloaded_again(fetch, server):
    server.pages["/images.bin"] = Page(b"right", headers={"ETag": '"1"'})
    path = fetch()
    for spoil in (path.unlink, lambda: path.write_bytes(b"rig")):
        spoil()
        assert fetch().read_bytes() == b"right"


def test_official_files_are_checked_and_have_several_addresses(
    fetch, server, tmp_path, caplog
):
    right = b"weights" * 1000
    digest = hashlib.sha256(right).hexdigest()
    expected = {"num_bytes": len(right), "checksums": {"sha256": digest}}
    server.pages["/a.weights"] = Page(WEB_PAGE)
    server.pages["/b/a.weights"] = Page(right[:-1])
    server.pages["/c/a.weights"] = Page(right[:-1] + b"x")
    mirrors = [f"{server.url}/{folder}/a.weights" for folder in "bc"]
    with pytest.raises(InputError) as caught:
        fetch("/a.weights", mirrors=mirrors, **expected)
    for words in (
        f"{server.url}/a.weights cannot be downloaded (a web page came",
        f"{server.url}/b/a.weights cannot be downloaded (expected 7,000 bytes, got 6,9",
        f"{server.url}/c/a.weights cannot be downloaded (expected the sha256 checksum",
    ):
        assert words in str(caught.value)
    assert left_in_cache(tmp_path) == []

    server.pages["/c/a.weights"] = Page(right)
    path = fetch("/a.weights", mirrors=mirrors, **expected)
    assert path.read_bytes() == right
    assert "came in place of the file; does the address need a login" in caplog.text
    assert f"trying {mirrors[1]}" in caplog.text
    requests = len(server.log)
    assert fetch("/a.weights", mirrors=mirrors, **expected) == path
    assert len(server.log) == requests  # Its content is known.
    assert f"{server.url}/a.weights: from cache, fetched on 20" in caplog.text


def test_redirects_names_and_secrets(fetch, server, caplog):
    server.pages["/latest/%EA%B3%A0%20x.zip?key=secret"] = Page(
        status=302, headers={"Location": "/real"}
    )
    server.pages["/real"] = Page(b"PK\x03\x04zip")
    path = fetch("/latest/고 x.zip?key=secret")
    assert path.name == "고 x.zip" and path.read_bytes() == b"PK\x03\x04zip"
    assert "secret" not in caplog.text
    # To a login page.
    server.pages["/real"] = Page(WEB_PAGE, last_modified=None)
    with pytest.raises(InputError, match="a web page came in place") as caught:
        fetch("/latest/고 x.zip?key=secret")
    assert "secret" not in str(caught.value)
    server.pages["/loop"] = Page(status=302, headers={"Location": "/loop"})
    with pytest.raises(InputError, match=r"/loop cannot be downloaded \(Exceeded 30"):
        fetch("/loop")


@pytest.mark.parametrize("body", [b"", b"Access denied", b"<?xml version='1.0'?><E/>"])
def test_what_is_no_archive_does_not_replace_one(fetch, server, body):
    server.pages["/images.zip"] = Page(b"PK\x03\x04right", headers={"ETag": '"1"'})
    path = fetch("/images.zip")
    server.pages["/images.zip"] = Page(body, headers={"ETag": '"2"'})
    with pytest.raises(InputError) as caught:
        fetch("/images.zip")
    words = f"expected an archive, as images.zip says, got {len(body)} bytes"
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == b"PK\x03\x04right"


def test_a_compressed_body_and_one_without_a_size(fetch, server):
    server.pages["/classes.txt"] = Page(
        gzip.compress(b"circle\n" * 1000), headers={"Content-Encoding": "gzip"}
    )
    assert fetch("/classes.txt").read_bytes() == b"circle\n" * 1000
    # It may have been cut off without a sign: it is fetched each time.
    headers = {"Content-Length": None, "ETag": '"1"'}
    server.pages["/classes.txt"] = Page(b"circle\n", headers=headers)
    assert fetch("/classes.txt").read_bytes() == b"circle\n"
    server.pages["/classes.txt"] = Page(b"circle\nsquare\n", headers=headers)
    assert fetch("/classes.txt").read_bytes() == b"circle\nsquare\n"


def test_files_of_one_name_and_different_addresses(fetch, server):
    for folder in "ab":
        server.pages[f"/{folder}/images.bin"] = Page(folder.encode())
    paths = [fetch(f"/{folder}/images.bin") for folder in "ab"]
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]


PROGRAM = """
import pathlib, sys
from valohai_step import downloads, runtime
runtime.set_up_logging()
print(downloads.download(sys.argv[1], pathlib.Path(sys.argv[2]), "--images FILE"))
"""


def start(url, folder):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, str(folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_download_at_the_same_time(server, tmp_path):
    url, started, released = f"{server.url}/images.bin", threading.Event(), []
    waiting = threading.Event()

    def hold():
        started.set()
        released.append(waiting.wait(60))

    server.pages["/images.bin"] = Page(b"x" * 300_000, before_body=hold)
    first = start(url, tmp_path)
    assert started.wait(60)
    second = start(url, tmp_path)
    line = second.stderr.readline()
    assert line == f"waiting for another process that downloads {url}\n"
    waiting.set()
    paths = set()
    for process in (first, second):
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        paths.add(stdout.strip())
    (path,) = paths
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read() == b"x" * 300_000
    assert "unchanged, from cache" in stderr


def test_without_file_locks_each_process_has_its_own_partial_file(
    fetch, server, monkeypatch
):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    barrier = threading.Barrier(2, timeout=60)
    server.pages["/images.bin"] = Page(b"x" * 300_000, before_body=barrier.wait)
    paths, errors = [], []

    def run():
        try:
            paths.append(fetch())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(set(paths)) == 1
    assert paths[0].read_bytes() == b"x" * 300_000


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    server.pages["/images.bin"] = Page(b"x" * 300_000)
    url = f"{server.url}/images.bin"
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="keep the download of http://127") as caught:
        downloads.download(url, tmp_path / "file" / "cache", "--images FILE")
    assert "images.bin cannot be written: Not a directory" in str(caught.value)
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))"
    process = subprocess.run(
        [sys.executable, "-c", program + PROGRAM, url, str(tmp_path / "cache")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    last = process.stderr.splitlines()[-1]
    assert "images.bin cannot be written: File too large" in last
    assert ".partial" not in last and f"keep the download of {url}" in last
    assert left_in_cache(tmp_path) == []


def test_other_addresses(tmp_path):
    (tmp_path / "a b.txt").write_text("a")
    source = (tmp_path / "a b.txt").as_uri()
    # A file of this machine needs no copy, and so is never an old one.
    assert downloads.download(source, tmp_path, "--x FILE") == tmp_path / "a b.txt"
    for url, words in (
        (f"{source}.gone", "which does not exist"),
        ("s3://bucket/images.bin", "s3://, which only Valohai can open"),
        ("http://[::1/images.bin", "expected an address"),
        ("http:///images.bin", "cannot be downloaded"),
    ):
        with pytest.raises(InputError, match=words):
            downloads.download(url, tmp_path / "cache", "--x FILE")

"""Tars: read like zips, and refused for the same reasons."""

import io
import multiprocessing
import tarfile

import pytest
from suite_export import box, build, encoded_image, labelled, write_zip

from superbai.export import Export
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archive_entries, archives

FILES = {
    "ds/a.jpg": b"bytes of a",
    "ds/데이터.png": b"more bytes" * 1000,
    "__MACOSX/ds/._a.jpg": b"",
    "ds/empty": b"",
}
NAMES = ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "download"]


def write_tar(path, files, mode=None, **member_options):
    kind = path.name.rpartition(".")[2]
    mode = mode or {"tgz": "gz", "gz": "gz", "bz2": "bz2", "xz": "xz"}.get(kind, "")
    with tarfile.open(path, f"w:{mode}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in member_options.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_tar_is_read_like_a_zip(tmp_path, name):
    path = write_tar(tmp_path / name, FILES)
    assert archives.is_archive(path)
    with archives.open_archive(path) as archive:
        assert archive.name == str(path)
        assert archive.files == ["ds/a.jpg", "ds/데이터.png", "ds/empty"]
        for entry in archive.files:
            assert archive.read(entry) == FILES[entry]
        assert archive.read_start("ds/데이터.png", 4) == b"more"
        with pytest.raises(InputError, match="has 10,000 bytes; expected at most 99"):
            archive.read("ds/데이터.png", limit=99)


def test_forked_processes_read_at_the_same_time(tmp_path):
    path = write_tar(
        tmp_path / "a.tar.gz", {f"{n}": b"%d" % n * 999 for n in range(50)}
    )
    with archives.open_archive(path) as archive:

        def read(queue):
            queue.put([archive.read(f"{n}") for n in range(50)])

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        processes = [context.Process(target=read, args=(queue,)) for _ in range(3)]
        for process in processes:
            process.start()
        results = [queue.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
    assert results == [[b"%d" % n * 999 for n in range(50)]] * 3


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("../a.jpg", {}, "leaves the archive"),
        ("/a.jpg", {}, "leaves the archive"),
        ("a", {"type": tarfile.SYMTYPE, "linkname": "b"}, "is a link or a device"),
        ("a", {"type": tarfile.FIFOTYPE}, "is a link or a device"),
    ],
)
def test_what_is_not_safe_is_refused(tmp_path, name, options, reason):
    path = write_tar(tmp_path / "a.tar", {name: b""}, **options)
    with pytest.raises(InputError, match=f"'{name}' {reason}.*Nothing was read"):
        archives.open_archive(path)


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(InputError, match="'a' is there twice"):
        archives.open_archive(path)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar.gz", {"a": bytes(10**7)})
    monkeypatch.setattr(archive_entries, "_SMALL_BYTES", 10**6)
    with pytest.raises(InputError, match="would unpack to .* at most 200 times"):
        archives.open_archive(path)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_damaged_tar_is_refused(tmp_path, name):
    content = {f"{n}": bytes(range(256)) * 40 for n in range(9)}
    path = write_tar(tmp_path / name, content)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with (
        pytest.raises(InputError, match=f"{name}: cannot read"),
        archives.open_archive(path) as archive,
    ):
        for entry in archive.files:
            archive.read(entry)


def test_other_compressed_files_are_no_tars(tmp_path):
    path = tmp_path / "labels.json.gz"
    path.write_bytes(b"\x1f\x8b no gzip")
    assert not archives.is_archive(path)


def test_an_export_in_a_tar_is_read_like_its_zip(tmp_path):
    images, labels = build([labelled("a.jpg", box(1, 1, 9, 9))])
    images |= {"ds/spare": encoded_image(), "readme": b"text"}
    zipped = write_zip(tmp_path / "labels.zip", labels)
    records = []
    for path in (
        write_zip(tmp_path / "images.zip", images),
        write_tar(tmp_path / "images.tar.gz", images),
    ):
        with Export([path], zipped) as export:
            records.append(list(map(export.read, export.items)))
            assert export.notes.left_out.total() == 2
    assert records[0] == records[1] and len(records[0]) == 1


def test_the_case_of_a_tar(shared):
    case = shared / "cases" / "images_as_tar_gz"
    with Export([case / "images.tar.gz"], case / "labels.zip") as export:
        assert all(map(export.read, export.items))

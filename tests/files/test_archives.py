"""Zips and folders: opening, listing and reading, and what is refused."""

import multiprocessing
import resource
import struct
import time
import unicodedata
import zipfile

import pytest
import suite_export

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.names import normalise_path

KOREAN = "고양이/사진.jpg"
NFC, NFD = (unicodedata.normalize(form, KOREAN) for form in ("NFC", "NFD"))
FILES = ["top/a.jpg", "c.jpg"]
OTHERS = ["top/.DS_Store", "__MACOSX/top/._a.jpg", ".git/b.jpg", "top/._b.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>Link expired</html>",
        b"",
        b"PK\x03\x04 cut off",
        b"PK\x05\x06" + b"\xff" * 18,
    ],
    ids=["web page", "empty", "cut off", "no such directory"],
)
def test_a_file_that_is_not_a_zip_is_refused(tmp_path, content):
    path = tmp_path / "labels.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"labels\.zip is not a zip archive") as caught:
        archives.open_archive(path)
    assert repr(content[:12]) in str(caught.value)


def test_a_truncated_zip_is_refused(tmp_path):
    path = suite_export.write_zip(tmp_path / "a.zip", {"a.json": bytes(1000)})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        InputError, match=r"a\.zip is not a zip .*download is incomplete"
    ):
        archives.open_archive(path)


def test_the_files_of_a_zip(tmp_path):
    names = ["top/", *FILES, *OTHERS, "windows\\b.jpg"]
    path = suite_export.write_zip(tmp_path / "a.zip", dict.fromkeys(names, b""))
    with archives.open_archive(path) as archive:
        assert archive.name == str(path)
        assert archive.files == [*FILES, "windows/b.jpg"]
        assert archive.read("windows/b.jpg") == b""


def test_the_files_of_a_folder(tmp_path):
    for name in FILES + OTHERS:
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    folder = tmp_path / "folder"
    with archives.open_archive(folder) as archive:
        assert archive.name == str(folder)
        assert archive.files == sorted(FILES)
        assert archive.read("top/a.jpg") == b"top/a.jpg"
        (folder / "c.jpg").unlink()
        with pytest.raises(InputError, match=r"folder: cannot read 'c.jpg': No such"):
            archive.read("c.jpg")
        with pytest.raises(InputError, match="'top/a.jpg' has 9 bytes; .* at most 8"):
            archive.read("top/a.jpg", limit=8)
    chosen = [folder / "top" / "a.jpg", folder / ".git" / "b.jpg"]
    assert archives.open_archive(chosen).files == ["top/a.jpg"]
    (folder / "top" / b"\xff.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"")
    with pytest.raises(InputError, match="is not UTF-8"):
        archives.open_archive(folder)


@pytest.mark.parametrize(
    "compression",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED],
    ids=["stored", "deflated"],
)
def test_read(tmp_path, compression):
    entries = {"dir/a.json": b"0123456789" * 20_000}
    path = suite_export.write_zip(tmp_path / "a.zip", entries, compression)
    with archives.open_archive(path) as archive:
        assert archive.read("dir/a.json") == entries["dir/a.json"]

    # The data begins after a header of 30 bytes and the name.
    damaged = bytearray(path.read_bytes())
    start = 30 + len("dir/a.json")
    damaged[start : start + 15] = b"\xff" * 15
    path.write_bytes(damaged)
    with (
        archives.open_archive(path) as archive,
        pytest.raises(InputError, match=r"a\.zip: cannot read 'dir/a\.json'.*damaged"),
    ):
        archive.read("dir/a.json")


def test_a_wrong_checksum_is_refused(tmp_path):
    entries = {"a.json": b"0123456789", "b.json": b"{}"}
    path = suite_export.write_zip(tmp_path / "a.zip", entries, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with archives.open_archive(path) as archive:
        assert archive.read("b.json") == b"{}"
        with pytest.raises(InputError, match=r"a\.zip: cannot read 'a\.json': Bad CRC"):
            archive.read("a.json")


def write_entry(path, name="a.json", content=b"{}", **attributes):
    """Writes a zip of one entry with attributes of its `zipfile.ZipInfo`."""
    entry = zipfile.ZipInfo(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for attribute, value in attributes.items():
            setattr(entry, attribute, value)
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def test_an_entry_beyond_the_end_of_the_file_is_refused(tmp_path):
    # Zip64: 32 bits of ones, and the place in the extra field.
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    path = write_entry(tmp_path / "a.zip", extra=extra)
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + 42
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: .* the archive is damaged"):
        archives.open_archive(path)


def test_an_encrypted_entry_is_refused(tmp_path):
    path = write_entry(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags in the entry's header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the archive's directory
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: 'a\.json' is encrypted"):
        archives.open_archive(path)


@pytest.mark.parametrize(
    "name",
    [
        "../a.json",
        "labels/../../a.json",
        "..\\a.json",
        "/etc/passwd",
        "\\server\\a.json",
        "C:/a.json",
        "__MACOSX/../../a.json",
    ],
)
def test_paths_that_leave_the_archive_are_refused(tmp_path, name):
    path = write_entry(tmp_path / "a.zip", name)
    with pytest.raises(InputError, match=r"a\.zip: '.*' leaves the archive"):
        archives.open_archive(path)


def test_names_with_dots_are_files(tmp_path):
    for name in ("ds/a..b...jpg", ".ds/.a.jpg", "A: first/a.jpg"):
        path = write_entry(tmp_path / "a.zip", name)
        assert archives.open_archive(path).files == [name]


def test_a_symbolic_link_is_refused(tmp_path):
    link = {"external_attr": 0o120777 << 16, "create_system": 3}
    path = write_entry(tmp_path / "a.zip", content=b"/etc/passwd", **link)
    with pytest.raises(InputError, match=r"a\.zip: 'a\.json' is a symbolic link"):
        archives.open_archive(path)


def test_a_large_entry_is_refused_before_it_is_read(tmp_path):
    path = write_entry(tmp_path / "a.zip", content=bytes(2000))
    with archives.open_archive(path) as archive:
        assert archive.read("a.json", limit=2000) == bytes(2000)
        with pytest.raises(
            InputError, match=r"a\.zip: 'a\.json' has 2,000 bytes; .* at most 1,999"
        ):
            archive.read("a.json", limit=1999)


def test_an_archive_that_grows_too_much_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            with archive.open(f"{number}.json", "w") as file:
                for _ in range(401 if number == 1 else 400):
                    file.write(bytes(2**20))
    with pytest.raises(
        InputError,
        match=r"a\.zip: its .* would unpack to 1,259,339,776, and '1\.json' alone to "
        "420,478,976; expected at most 200 times as many",
    ):
        archives.open_archive(path)


@pytest.mark.parametrize(
    ("compression", "name"),
    [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")],
)
def test_other_methods_are_refused(tmp_path, compression, name):
    path = suite_export.write_zip(tmp_path / "a.zip", {"a.json": b"{}"}, compression)
    with pytest.raises(InputError, match=rf"a\.zip: 'a\.json' is compressed by {name}"):
        archives.open_archive(path)


def test_a_header_with_a_wrong_size(tmp_path):
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.json", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(2**20))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(signature) + offset
        content[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        archives.open_archive(path) as archive,
        pytest.raises(InputError, match=r"a\.zip: cannot read 'a\.json'"),
    ):
        archive.read("a.json")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150 * 1024  # KiB, of the 300 MiB that it unpacks to


def test_two_different_entries_with_the_same_name_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", b"old")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.json", b"new")
    with pytest.raises(InputError, match=r"a\.zip: 'a\.json' is there twice"):
        archives.open_archive(path)


@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_korean_names_without_the_flag_of_their_encoding(tmp_path, encoding):
    raw = KOREAN.encode(encoding)
    path = write_entry(tmp_path / "a.zip", "x" * len(raw), b"bytes")
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    with archives.open_archive(path) as archive:
        assert archive.files == [KOREAN]
        assert archive.read(KOREAN) == b"bytes"


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_forked_processes_read_at_the_same_time(tmp_path, kind):
    contents = {f"{n}.json": bytes([n]) * 100_000 for n in range(50)}
    path = tmp_path / "folder"
    if kind == "zip":
        path = suite_export.write_zip(tmp_path / "a.zip", contents)
    else:
        path.mkdir()
        for name, content in contents.items():
            (path / name).write_bytes(content)
    with archives.open_archive(path) as archive:

        def read_all():
            for _ in range(5):
                for name, content in contents.items():
                    assert archive.read(name) == content

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=read_all) for _ in range(3)]
        for process in processes:
            process.start()
        read_all()
        for process in processes:
            process.join()
            assert process.exitcode == 0


def test_links_in_a_folder_are_followed_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"bytes")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert archives.open_archive(folder).files == ["link/a.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.zip", b"anything", True),
        ("A.ZIP", b"anything", True),
        ("a", b"PK\x03\x04...", True),
        ("a.jpg", b"\xff\xd8...PK\x05\x06...", False),
        ("a.jpg", b"", False),
    ],
)
def test_is_archive(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert archives.is_archive(tmp_path / name) is expected
    assert archives.is_archive(tmp_path)


@pytest.mark.slow
def test_200_000_entries(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(200_000):
            archive.writestr(f"ds/{number}.json", b"")
    start = time.perf_counter()
    with archives.open_archive(path) as archive:
        assert len(archive.files) == 200_000
        assert archive.read("ds/199999.json") == b""
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("/ds/a.jpg", "ds/a.jpg"),
        ("ds//sub/a.jpg", "ds/sub/a.jpg"),
        ("ds\\sub\\a.jpg", "ds/sub/a.jpg"),
        (NFD, NFC),
        ("", ""),
    ],
)
def test_normalise(path, expected):
    assert normalise_path(path) == expected
    assert normalise_path(expected) == expected

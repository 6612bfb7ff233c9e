"""Tars: read like zips, and refused for the same reasons."""

import io
import json
import multiprocessing
import tarfile

import pytest
from backports import zstd
from suite_export import box, build, encoded_image, labelled, write_zip

from superbai.export import Export
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archive_entries, archives, tars

FILES = {
    "ds/a.jpg": b"bytes of a",
    "ds/데이터.png": b"more bytes" * 1000,
    "__MACOSX/ds/._a.jpg": b"",
    "ds/empty": b"",
}
NAMES = ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.tar.zst", "download"]
MODES = ("", "gz", "bz2", "xz", "zst")


def write_tar(path, files, mode=None, **member_options):
    kind = path.name.rpartition(".")[2]
    if mode is None:
        mode = "gz" if kind == "tgz" else kind if kind in MODES else ""
    if mode == "zst":
        write_tar(path, files, "", **member_options)
        path.write_bytes(zstd.compress(path.read_bytes()))
        return path
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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["images.zip", "images.gz", "images", "a.jpg", "a.b c"]
)
def test_the_content_tells_what_a_tar_is(tmp_path, name, mode):
    path = write_tar(tmp_path / name, FILES, mode)
    assert archives.is_archive(path)
    with archives.open_archive(path) as archive:
        assert archive.files == ["ds/a.jpg", "ds/데이터.png", "ds/empty"]


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "oldest"])
def test_the_formats_of_tars(tmp_path, form):
    path, name = tmp_path / "a.tar", "데이터/" + 60 * "a" + "/" + 60 * "b"
    formats = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    content = tarfile.TarInfo("short" if form == "oldest" else name)
    content = content.tobuf(formats.get(form, tarfile.USTAR_FORMAT))
    if form == "oldest":  # Before POSIX, the header ended with the name of a link.
        header = bytearray(content[:257] + bytes(255))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content, name = bytes(header), "short"
    path.write_bytes(content + bytes(1024))
    with archives.open_archive(path) as archive:
        assert archive.files == [name]


def test_zstandard_of_several_frames_and_without_its_package(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar.zst", FILES, "")
    content = path.read_bytes()
    # As pzstd writes it: a frame that is skipped, then several others.
    frames = [
        zstd.compress(content[i : i + 4096]) for i in range(0, len(content), 4096)
    ]
    path.write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + b"".join(frames))
    with archives.open_archive(path) as archive:
        assert archive.read("ds/데이터.png") == FILES["ds/데이터.png"]
    path.write_bytes(b"".join(frames)[:-3])
    with pytest.raises(InputError, match=r"a\.tar\.zst: cannot read this tar"):
        archives.open_archive(path)
    monkeypatch.setattr(tars, "zstd", None)
    with pytest.raises(InputError, match=r"a\.tar\.zst: .*pip install backports\.zstd"):
        archives.is_archive(path)


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
    files = {"ds/b": b"b" * 99, "ds/데이터": bytes(10**7), "c": bytes(10**5)}
    path = write_tar(tmp_path / "a.tar.gz", files)
    monkeypatch.setattr(archive_entries, "_SMALL_BYTES", 10**6)
    with pytest.raises(
        InputError, match="'ds/데이터' alone to 10,000,000; .* at most 200 times"
    ):
        archives.open_archive(path)


@pytest.mark.parametrize("encoding", ["cp949", "cp932", "cp1251"])
def test_names_in_the_encoding_of_the_keys(tmp_path, encoding):
    names = {"cp949": "사진", "cp932": "写真表", "cp1251": "Фото"}
    name = f"{names[encoding]}/a.jpg"
    path = write_tar(tmp_path / "a.tar", {"x" * len(name.encode(encoding)): b"bytes"})
    content = bytearray(path.read_bytes())
    content[: len(name.encode(encoding))] = name.encode(encoding)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    with archives.open_archive(path) as archive:
        assert archive.has_undeclared_names
        archives.choose_encodings([archive], [name])
        assert archive.files == [name]
        assert archive.read(name) == b"bytes"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst"])
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
    labels = {k: v if isinstance(v, bytes) else as_json(v) for k, v in labels.items()}
    for mode in ("zip", *MODES):
        if mode == "zip":
            paths = write_zip(tmp_path / "images.zip", images), zipped
        else:
            paths = [
                write_tar(tmp_path / f"{name}.tar.{mode}", files, mode)
                for name, files in (("images", images), ("labels", labels))
            ]
        with Export([paths[0]], paths[1]) as export:
            records.append(list(map(export.read, export.items)))
            assert export.notes.left_out.total() == 2
    assert records == records[:1] * 6 and len(records[0]) == 1


def as_json(value):
    return json.dumps(value).encode()


def test_the_case_of_a_tar(shared):
    case = shared / "cases" / "images_as_tar_gz"
    records = []
    for images in ("images.zip", "images.tar.gz"):
        with Export([case / images], case / "labels.zip") as export:
            records.append({i.source_id: export.read(i) for i in export.items})
    assert records[0] == records[1] and len(records[0]) == 4


def test_a_tar_that_ends_between_two_files_or_at_a_damaged_header(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"one", "2.jpg": b"two"})
    content = path.read_bytes()
    for damaged, got in (
        (content[:1024], "its end"),
        (content[:1500], "its end"),
        (content[:2048], "its end"),
        (content[:1024] + b"\xff" + content[1025:], "a damaged header"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"end mark of a tar at .* got {got}; is"):
            archives.open_archive(path)
    # Some programs write one block of zeros, not two.
    path.write_bytes(content[:2560])
    with archives.open_archive(path) as archive:
        assert archive.files == ["1.jpg", "2.jpg"]

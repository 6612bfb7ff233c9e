"""Zips, and folders as if they were zips: list the files and read them in place.

A zip is checked when it is opened and again before each entry is read: no entry can
reach outside the archive or unpack to more memory than the limits below allow.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.positional_file import open_positional

# An uncompressed image of 100 megapixels is larger than this, but hardly anyone labels
# such a file in a browser.
MAX_ENTRY_BYTES = 256 * 2**20
# Labels compress to a twentieth of their size, only a zip bomb to a thousandth.
MAX_GROWTH = 200
_SMALL_BYTES = 2**30  # Archives that unpack to less than this may grow by any factor.

_UTF8 = 1 << 11  # Flag of an entry whose name is in UTF-8.
_HIDDEN = {"__MACOSX", ".DS_Store", "Thumbs.db", ".git", ".ipynb_checkpoints"}
# For bzip2 and LZMA, there is no bound on how far they expand.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile raises for a damaged file, depending on where the damage is.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
)


def open_archive(path):
    """Opens a zip, a folder, or a list of files as a folder that holds only these.

    Args:
        path: a `pathlib.Path` of a zip or a folder, or a list of paths of files.

    Returns:
        A `Zip` or a `Folder`. Both are context managers and have `name`, for error
        messages; `files`, a list of the names of their files, without the files that
        macOS and editors add; and `read`.

    Raises:
        InputError: the file is not a zip, or cannot be read safely.
    """
    if isinstance(path, list):
        return Folder(Path(os.path.commonpath([file.parent for file in path])), path)
    return Folder(path) if path.is_dir() else Zip(path)


def is_archive(path):
    """Returns whether a path is a folder, or a zip by its name or its first bytes."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


class Zip:
    """A zip that is open for reading; see `open_archive`.

    Forked processes can read from it too, each at its own position.
    """

    def __init__(self, path):
        self.name = str(path)
        self._file = open_positional(path)
        with ExitStack() as stack:
            stack.enter_context(self._file)
            try:
                self._zip = zipfile.ZipFile(self._file)
            except _DAMAGE as error:
                self._file.seek(0)
                start = self._file.read(12)
                raise InputError(
                    f"{path} is not a zip archive (starts with {start!r}, {error}): "
                    "the download is incomplete, or its link had expired; download it "
                    "again."
                ) from error
            # zipfile keeps 540 bytes for each entry, 540 MB for 1,000,000 of them; it
            # needs a little more than that to open the file anyway.
            names = self._check_entries(path.stat().st_size)
            stack.pop_all()
        self.files = [name for name in names if not _is_hidden(name)]
        # What the zip itself calls the few files whose names were decoded again.
        self._stored_names = {
            name: stored for name, stored in names.items() if name != stored
        }

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._zip.close()
        self._file.close()

    def read(self, name, limit=MAX_ENTRY_BYTES):
        """Reads one file.

        Args:
            name: one of `files`.
            limit: the most bytes that the file may have.

        Raises:
            InputError: the file is larger, its checksum is wrong, or it is damaged.
        """
        entry = self._zip.getinfo(self._stored_names.get(name, name))
        _check_size(self.name, name, entry.file_size, limit)
        try:
            with self._zip.open(entry) as file:
                # No more than a header states, which may be wrong, is unpacked. In one
                # piece, as copying takes a tenth of the time of a conversion.
                content = file.read(entry.file_size + 1)
            if len(content) != entry.file_size:
                raise EOFError(f"{len(content):,} of {entry.file_size:,} bytes")
        except _DAMAGE as error:
            raise InputError(
                f"{self.name}: cannot read '{name}': {error}; is the archive damaged?"
            ) from error
        return content

    def _check_entries(self, packed_bytes):
        """Returns a dict from the names of the files to what the zip calls them."""
        names, unpacked_bytes = {}, 0
        for entry in self._zip.infolist():
            name = _decoded_name(entry).replace("\\", "/")
            if re.match(r"/|[A-Za-z]:/", name) or ".." in name.split("/"):
                raise self._refuse(
                    name, "leaves the archive; expected a path inside it"
                )
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise self._refuse(name, "is a symbolic link; expected a file")
            if entry.flag_bits & 1:
                raise self._refuse(
                    name, "is encrypted; expected a zip without a password"
                )
            if entry.compress_type not in _METHODS:
                method = zipfile.compressor_names.get(entry.compress_type, "unknown")
                raise self._refuse(
                    name, f"is compressed by {method}; expected deflate or none"
                )
            if entry.header_offset >= packed_bytes:
                raise self._refuse(
                    name, "starts after the end of the file: the archive is damaged"
                )
            if not name.endswith("/"):
                twin = self._zip.getinfo(names.setdefault(name, entry.filename))
                if (twin.CRC, twin.file_size) != (entry.CRC, entry.file_size):
                    raise self._refuse(name, "is there twice, with different contents")
                unpacked_bytes += entry.file_size
        if unpacked_bytes > max(_SMALL_BYTES, MAX_GROWTH * packed_bytes):
            raise InputError(
                f"{self.name}: its {packed_bytes:,} bytes would unpack to "
                f"{unpacked_bytes:,}; expected at most {MAX_GROWTH} times as many."
            )
        return names

    def _refuse(self, name, reason):
        return InputError(f"{self.name}: '{name}' {reason}. Nothing was read from it.")


class Folder:
    """A folder with all its subfolders, or some of its files; see `open_archive`."""

    def __init__(self, path, paths=None):
        self.name = str(path)
        self._path = path
        if paths is None:
            paths = list(_walk(path))
        # A dict, as a file may be given twice.
        names = dict.fromkeys(f.relative_to(path).as_posix() for f in sorted(paths))
        self.files = [name for name in names if not _is_hidden(name)]
        for name in self.files:
            if not name.isascii() and name != name.encode("utf-8", "replace").decode():
                raise InputError(f"{path}: the file name {name!r} is not UTF-8.")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        pass

    def read(self, name, limit=MAX_ENTRY_BYTES):
        """Reads one file; see `Zip.read`."""
        path = self._path / name
        try:
            _check_size(self.name, name, path.stat().st_size, limit)
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{self.name}: cannot read '{name}': {error.strerror or error}."
            ) from error


def _check_size(archive, name, size, limit):
    if size > limit:
        raise InputError(
            f"{archive}: '{name}' has {size:,} bytes; expected at most {limit:,}."
        )


def _walk(folder):
    """Yields the files below a folder; follows links to folders."""
    seen = set()

    def refuse(error):
        raise error

    for at, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(at))
        # A link to a parent folder would never end.
        folders[:] = [f for f in folders if os.path.realpath(Path(at, f)) not in seen]
        yield from (Path(at, name) for name in names)


def _decoded_name(entry):
    """Returns the name of an entry, also where UTF-8 or Korean is not declared."""
    if entry.flag_bits & _UTF8 or entry.filename.isascii():
        return entry.filename
    raw = entry.filename.encode("cp437")  # zipfile has decoded it so.
    for encoding in ("utf-8", "cp949"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return entry.filename


def _is_hidden(name):
    """Returns whether a path is a file that a system or an editor left behind."""
    return any(part in _HIDDEN or part.startswith("._") for part in name.split("/"))

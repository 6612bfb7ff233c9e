"""Archives of files: zips, read without extracting them, and folders in their place.

A zip is checked when it is opened and before each entry is read: nothing in it can
reach outside of it, or grow to more memory than is stated here.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

import numpy as np

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.packed_list import PackedList

# A picture of 100 megapixels without any compression takes more than this; such a file
# is hardly one that was labelled in a browser.
MAX_ENTRY_BYTES = 256 * 2**20
# Labels shrink to a twentieth; only what was made to burst shrinks to a thousandth.
MAX_GROWTH = 200
_SMALL_BYTES = 2**30  # Archives that unpack to less than this may grow as they like.

_CHUNK_BYTES = 2**20
_UTF8 = 1 << 11  # The flag of a name that is in UTF-8.
_LEFT_BEHIND = {"__MACOSX", ".DS_Store", "Thumbs.db", ".git", ".ipynb_checkpoints"}
# What bzip2 and LZMA make of a few bytes cannot be bounded.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile looks up to read an entry, besides its name; Pythons that check whether
# entries overlap have the last one.
_PLACE = {
    "header_offset": "i8",
    "compress_size": "i8",
    "file_size": "i8",
    "CRC": "u4",
    "compress_type": "u2",
    "flag_bits": "u2",
    "_end_offset": "i8",
}
_PLACE = {name: _PLACE[name] for name in _PLACE if name in zipfile.ZipInfo.__slots__}

# What zipfile raises for a damaged file, depending on where the damage is.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
)


def open_archive(path):
    """Opens a zip, a folder, or a list of files as a folder that holds no others.

    Args:
        path: a `pathlib.Path` of a zip or a folder, or a list of those of files.

    Returns:
        A `Zip` or a `Folder`. Both are context managers, and have `name`, what to call
        them in an error; `files`, a list of the names of their files, without what
        macOS and editors leave; and `read`.

    Raises:
        InputError: the file is no zip, or one that cannot be read safely.
    """
    if isinstance(path, list):
        return Folder(Path(os.path.commonpath([file.parent for file in path])), path)
    return Folder(path) if path.is_dir() else Zip(path)


def is_archive(path):
    """Tells whether a path is a folder, or a zip by its name or its first bytes."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


class Zip:
    """A zip that is open for reading; see `open_archive`."""

    def __init__(self, path):
        self.name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            with path.open("rb") as file:
                start = file.read(12)
            raise InputError(
                f"{path} is not a zip archive (starts with {start!r}, {error}): the "
                "download is cut off, or its link had expired; export again."
            ) from error
        try:
            entries = self._check(path.stat().st_size)
            self._files = _without_hidden(entries)
            self._entries = _Entries(entries)
        except OverflowError as error:
            self.close()
            raise InputError(
                f"{path}: an entry's place is no 64-bit number ({error}); is the "
                "archive damaged?"
            ) from error
        except BaseException:
            self.close()
            raise
        # They hold nearly a kilobyte an entry.
        self._zip.filelist.clear()
        self._zip.NameToInfo.clear()

    @property
    def files(self):
        return list(self._files)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._zip.close()

    def reopen(self):
        """Opens the file anew in a forked process, which shares the place in it."""
        # Not the list of its entries, which takes time; `close` closes the file.
        self._zip.fp = Path(self.name).open("rb")  # noqa: SIM115

    def read(self, name, limit=MAX_ENTRY_BYTES):
        """Reads one file.

        Args:
            name: one of `files`.
            limit: the most bytes that it may have.

        Raises:
            InputError: it has more, its checksum is wrong, or it is damaged.
        """
        entry = self._entries[name]
        _check_size(self.name, name, entry.file_size, limit)
        content = bytearray()
        try:
            with self._zip.open(entry) as file:
                # Not all at once: a header may lie about the size.
                while chunk := file.read(_CHUNK_BYTES):
                    content += chunk
            if len(content) != entry.file_size:
                raise EOFError(f"{len(content):,} of {entry.file_size:,} bytes")
        except _DAMAGE as error:
            raise InputError(
                f"{self.name}: cannot read '{name}': {error}; is the archive damaged?"
            ) from error
        return bytes(content)

    def _check(self, packed):
        """Returns the files among the entries, by name."""
        entries, total = {}, 0
        for entry in self._zip.infolist():
            name = _decoded_name(entry).replace("\\", "/")
            if re.match(r"/|[A-Za-z]:/", name) or ".." in name.split("/"):
                raise self._refuse(name, "leaves the archive; expected a path in it")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise self._refuse(name, "is a symbolic link; expected a file")
            if entry.flag_bits & 1:
                raise self._refuse(
                    name, "is encrypted; expected a zip without password"
                )
            if entry.compress_type not in _METHODS:
                method = zipfile.compressor_names.get(entry.compress_type, "unknown")
                raise self._refuse(
                    name, f"is compressed by {method}; expected deflate or none"
                )
            if not name.endswith("/"):
                twin = entries.setdefault(name, entry)
                if (twin.CRC, twin.file_size) != (entry.CRC, entry.file_size):
                    raise self._refuse(name, "is there twice, with different contents")
                total += entry.file_size
        if total > max(_SMALL_BYTES, MAX_GROWTH * packed):
            raise InputError(
                f"{self.name}: its {packed:,} bytes would unpack to {total:,}; "
                f"expected at most {MAX_GROWTH} times as many."
            )
        return entries

    def _refuse(self, name, reason):
        return InputError(f"{self.name}: '{name}' {reason}. Nothing of it was read.")


class _Entries:
    """The entries of a zip by their names, in a twentieth of zipfile's memory."""

    def __init__(self, entries):
        """Takes a dict from name to `zipfile.ZipInfo`."""
        self._original = {
            name: entry.orig_filename
            for name, entry in entries.items()
            if name != entry.orig_filename
        }
        hashes = np.fromiter(map(hash, entries), "i8", len(entries))
        places = np.fromiter(
            map(attrgetter(*_PLACE), entries.values()),
            list(_PLACE.items()),
            len(entries),
        )
        order = hashes.argsort()
        self._hashes, self._places = hashes[order], places[order]

    def __getitem__(self, name):
        """Makes the `zipfile.ZipInfo` of one of the names."""
        entry = zipfile.ZipInfo(self._original.get(name, name))
        # Another name of the same hash is told by zipfile: it is not the header's.
        place = self._places[self._hashes.searchsorted(hash(name))]
        for field, value in zip(_PLACE, place.item(), strict=True):
            setattr(entry, field, value)
        return entry


class Folder:
    """A folder, with all folders in it, or a choice of files; see `open_archive`."""

    def __init__(self, path, paths=None):
        self.name = str(path)
        if paths is None:
            paths = list(_walk(path))
        # A dict, as a file may be given twice.
        names = dict.fromkeys(f.relative_to(path).as_posix() for f in sorted(paths))
        self._path, self._files = path, _without_hidden(names)
        for name in self.files:
            if not name.isascii() and name != name.encode("utf-8", "replace").decode():
                raise InputError(f"{path}: the file name {name!r} is not UTF-8.")

    @property
    def files(self):
        return list(self._files)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def close(self):
        pass

    def reopen(self):
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
    """Yields the files below a folder, also behind links to folders."""
    seen = set()

    def refuse(error):
        raise error

    for at, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(at))
        # A link to a folder that it lies in would go round for ever.
        folders[:] = [f for f in folders if os.path.realpath(Path(at, f)) not in seen]
        yield from (Path(at, name) for name in names)


def _decoded_name(entry):
    """The name of an entry, also one in UTF-8 or Korean that does not say so."""
    if entry.flag_bits & _UTF8 or entry.filename.isascii():
        return entry.filename
    raw = entry.filename.encode("cp437")  # As which zipfile has read it.
    for encoding in ("utf-8", "cp949"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return entry.filename


def _without_hidden(names):
    return PackedList(name for name in names if not _is_hidden(name))


def _is_hidden(name):
    """Tells whether a path is one that a system or an editor left, and no picture."""
    return any(
        part in _LEFT_BEHIND or part.startswith("._") for part in name.split("/")
    )

"""Zips, read in place; see `archives.open_archive`.

A zip is checked when it is opened and again before each entry is read: no entry can
reach outside the archive or unpack to more memory than the limits allow.
"""

import stat
import struct
import zipfile
import zlib
from contextlib import ExitStack, suppress

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.archive_entries import (
    MAX_ENTRY_BYTES,
    check_growth,
    check_size,
    is_hidden,
    leaves_archive,
    refuse_entry,
)
from yolov3_tf2.files.name_encodings import decode_known_names, decode_names
from yolov3_tf2.files.positional_file import open_positional

_UTF8 = 1 << 11  # Flag of an entry whose name is in UTF-8.
# Info-ZIP's extra field with the name of an entry in UTF-8, and its version.
_UNICODE_PATH, _UNICODE_PATH_VERSION = 0x7075, 1
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
            self._packed_bytes = path.stat().st_size
            self._raw_names = [
                _raw_name(entry)
                for entry in self._zip.infolist()
                if _declared_name(entry) is None
            ]
            self._take_names(decode_names(self._raw_names))
            stack.pop_all()

    @property
    def has_undeclared_names(self):
        """Whether the encoding of some names is a guess, see `choose_encoding`."""
        return bool(self._raw_names)

    def choose_encoding(self, known):
        """Decodes the names of undeclared encoding anew.

        Args:
            known: the result of `name_encodings.known_parts`.

        Raises:
            InputError: two different files then have the same name.
        """
        decoded = decode_known_names(self._raw_names, known)
        if decoded != self._decoded:
            self._take_names(decoded)

    def _take_names(self, decoded):
        """Lists the files; `decoded` has the names of `_raw_names`."""
        self._decoded = decoded
        names = self._check_entries(iter(decoded))
        self.files = [name for name in names if not is_hidden(name)]
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
        check_size(self.name, name, entry.file_size, limit)
        try:
            with self._zip.open(entry) as file:
                # No more than a header states, which may be wrong, is unpacked. In one
                # piece, as copying takes a tenth of the time of a conversion.
                content = file.read(entry.file_size + 1)
            if len(content) != entry.file_size:
                raise EOFError(f"{len(content):,} of {entry.file_size:,} bytes")
        except _DAMAGE as error:
            raise self._damaged(name, error) from error
        return content

    def read_start(self, name, number):
        """Returns the first bytes of a file, at most `number`; see `read`."""
        entry = self._zip.getinfo(self._stored_names.get(name, name))
        try:
            with self._zip.open(entry) as file:
                return file.read(number)
        except _DAMAGE as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name, error):
        return InputError(
            f"{self.name}: cannot read '{name}': {error}; is the archive damaged?"
        )

    def _check_entries(self, decoded):
        """Returns a dict from the names of the files to what the zip calls them."""
        names, unpacked_bytes = {}, 0
        for entry in self._zip.infolist():
            name = _declared_name(entry)
            name = (next(decoded) if name is None else name).replace("\\", "/")
            if leaves_archive(name):
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
            if entry.header_offset >= self._packed_bytes:
                raise self._refuse(
                    name, "starts after the end of the file: the archive is damaged"
                )
            if not name.endswith("/"):
                twin = self._zip.getinfo(names.setdefault(name, entry.filename))
                if (twin.CRC, twin.file_size) != (entry.CRC, entry.file_size):
                    raise self._refuse(name, "is there twice, with different contents")
                unpacked_bytes += entry.file_size
        check_growth(
            self.name,
            self._packed_bytes,
            unpacked_bytes,
            lambda: max(
                ((name, self._zip.getinfo(names[name]).file_size) for name in names),
                key=lambda pair: pair[1],
            ),
        )
        return names

    def _refuse(self, name, reason):
        return refuse_entry(self.name, name, reason)


def _declared_name(entry):
    """Returns the name of an entry; None where its encoding is not declared."""
    if entry.flag_bits & _UTF8:
        return entry.filename
    if b"up" in entry.extra:
        name = _unicode_path(entry)
        if name:
            return name
    return entry.filename if entry.filename.isascii() else None


def _raw_name(entry):
    """Returns the bytes of a name whose encoding is not declared."""
    # zipfile has decoded it so, and cuts the name itself at a zero byte.
    return entry.orig_filename.encode("cp437").partition(b"\0")[0]


def _unicode_path(entry):
    """Returns the name in Info-ZIP's Unicode Path field; "" without a valid one."""
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind != _UNICODE_PATH or len(field) < 5:
            continue
        version, checksum = struct.unpack("<BI", field[:5])
        # The field is outdated if a program that does not know it changed the name.
        is_current = checksum == zlib.crc32(entry.orig_filename.encode("cp437"))
        if version == _UNICODE_PATH_VERSION and is_current:
            with suppress(UnicodeDecodeError):
                return field[5:].decode("utf-8").partition("\0")[0]
    return ""

"""Tars, read in place; see `archives.open_archive`.

A compressed tar can only be read from its start to its end, and images are read in the
order of their labels: it is unpacked to a temporary file first.
"""

import bz2
import gzip
import lzma
import re
import tarfile
import tempfile
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path

from yolov3_tf2.errors import InputError, shorten
from yolov3_tf2.files import archive_entries
from yolov3_tf2.files.name_encodings import decode_known_names, decode_names
from yolov3_tf2.files.positional_file import open_positional

try:
    from backports import zstd  # Python's own from 3.14 on.
except ImportError:
    zstd = None

_CHUNK_BYTES = 2**20
_BLOCK_BYTES = 512  # Each entry has a header of one block.

# What a damaged file raises, depending on its compression.
_DAMAGE = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError),
    *([zstd.ZstdError] if zstd else []),
)


def _open_zstd(path, mode):
    if zstd is None:
        raise InputError(
            f"{path}: the package that unpacks Zstandard is not installed; pip install "
            "backports.zstd, or compress the tar by gzip."
        )
    return zstd.open(path, mode)


_OPEN_BY_START = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
    b"\x50\x2a\x4d\x18": _open_zstd,  # As pzstd begins its files.
}


def is_tar(path):
    """Returns whether a file is a tar, compressed or not, by its first bytes.

    Raises:
        InputError: it is compressed, and the package that unpacks it is missing.
    """
    with path.open("rb") as file:
        start = file.read(_BLOCK_BYTES)
    opener = _find_opener(start)
    if opener:
        try:
            with opener(path, "rb") as file:
                start = file.read(_BLOCK_BYTES)
        except InputError:
            raise
        except _DAMAGE:
            return re.search(r"\.(tar\.|t\w+$)", path.name.lower()) is not None
    try:
        # Not by the text "ustar", which the oldest tars do not have.
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class Tar:
    """A tar that is open for reading, with the attributes of `zips.Zip`."""

    def __init__(self, path):
        self.name = str(path)
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(self._open(path))
                self._members = self._list_members()
            except InputError:
                raise
            except _DAMAGE as error:
                raise InputError(
                    f"{path}: cannot read this tar ({shorten(error)}); is the download "
                    "complete?"
                ) from error
            self._raw_names = [raw for raw, name, _ in self._members if name is None]
            self._take_names(decode_names(self._raw_names))
            if not self._raw_names:
                self._members = []  # Not needed again.
            self._open_file = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._open_file.close()

    @property
    def has_undeclared_names(self):
        """See `zips.Zip`."""
        return bool(self._raw_names)

    def choose_encoding(self, known):
        """Decodes the names of undeclared encoding anew; see `zips.Zip`."""
        decoded = decode_known_names(self._raw_names, known)
        if decoded != self._decoded:
            self._take_names(decoded)

    def read(self, name, limit=archive_entries.MAX_ENTRY_BYTES):
        """Reads one file; see `zips.Zip.read`."""
        archive_entries.check_size(self.name, name, self._places[name][1], limit)
        return self._read(name)

    def read_start(self, name, number):
        """Returns the first bytes of a file; see `zips.Zip.read_start`."""
        return self._read(name, number)

    def _read(self, name, number=None):
        offset, size = self._places[name]
        size = size if number is None else min(number, size)
        self._file.seek(offset)
        content = self._file.read(size)
        if len(content) != size:
            raise InputError(
                f"{self.name}: cannot read '{name}': {len(content):,} of {size:,} "
                "bytes; is the archive damaged?"
            )
        return content

    def _open(self, path):
        """Opens the tar itself; forked processes have their own positions in it."""
        with path.open("rb") as file:
            opener = _find_opener(file.read(_BLOCK_BYTES))
        if opener is None:
            return open_positional(path)
        packed_bytes, unpacked_bytes = path.stat().st_size, 0
        with (
            opener(path, "rb") as packed,
            tempfile.NamedTemporaryFile(prefix="tar-") as unpacked,
        ):
            while chunk := packed.read(_CHUNK_BYTES):
                unpacked_bytes += len(chunk)
                unpacked.write(chunk)
                archive_entries.check_growth(
                    self.name,
                    packed_bytes,
                    unpacked_bytes,
                    lambda: _find_largest(unpacked),
                )
            unpacked.flush()
            # It stays on the disk until it is closed, without a name.
            return open_positional(Path(unpacked.name))

    def _list_members(self):
        """Returns a list of (bytes of the name, name, place) of all members.

        The name is None where it is not ASCII and its encoding is not declared. The
        place is the offset and size of the content; None for a folder.
        """
        members = []
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for member in tar:
                raw = member.name.encode("utf-8", "surrogateescape")
                is_declared = member.name.isascii() or "path" in member.pax_headers
                name = raw.decode("utf-8", "replace") if is_declared else None
                reason = ""
                if not (member.isreg() or member.isdir()):
                    reason = "is a link or a device; expected a file"
                elif member.sparse is not None:
                    reason = "is stored with gaps; expected a whole file"
                if reason:
                    shown = name or decode_names([raw])[0]
                    raise archive_entries.refuse_entry(self.name, shown, reason)
                place = (member.offset_data, member.size) if member.isreg() else None
                members.append((raw if name is None else None, name, place))
                tar.members.clear()  # It keeps 1 kB for each.
            self._check_end(tar.offset)
        return members

    def _check_end(self, offset):
        """Raises an `InputError` if no mark of the end is where the members end.

        `tarfile` also stops, without an error, at a damaged header and at the end of a
        file that was cut between two members.
        """
        self._file.seek(offset)
        block = self._file.read(_BLOCK_BYTES)
        if block != bytes(_BLOCK_BYTES):
            got = "a damaged header" if len(block) == _BLOCK_BYTES else "its end"
            raise InputError(
                f"{self.name}: expected another file or the end mark of a tar at byte "
                f"{offset:,}, got {got}; is the download complete?"
            )

    def _take_names(self, decoded):
        """Lists the files; `decoded` has the names of `_raw_names`."""
        self._decoded, left, places = decoded, iter(decoded), {}
        for _, name, place in self._members:
            name = next(left) if name is None else name
            name = name.replace("\\", "/").removeprefix("./")
            reason = ""
            if archive_entries.leaves_archive(name):
                reason = "leaves the archive; expected a path inside it"
            elif place and name in places:
                reason = "is there twice"
            if reason:
                raise archive_entries.refuse_entry(self.name, name, reason)
            if place:
                places[name] = place
        self._places = places
        self.files = [name for name in places if not archive_entries.is_hidden(name)]


def _find_largest(unpacked):
    """Returns the name and size of the largest member at the start of a tar."""
    largest = ("", 0)
    unpacked.flush()
    unpacked.seek(0)
    # The end of the tar is missing.
    with suppress(*_DAMAGE), tarfile.open(fileobj=unpacked, mode="r:") as tar:
        for member in tar:
            if member.size >= largest[1]:
                raw = member.name.encode("utf-8", "surrogateescape")
                largest = (decode_names([raw])[0], member.size)
            tar.members.clear()
    return largest


def _find_opener(start):
    """Returns the function that opens a compressed file; None for any other."""
    found = (f for magic, f in _OPEN_BY_START.items() if start.startswith(magic))
    return next(found, None)

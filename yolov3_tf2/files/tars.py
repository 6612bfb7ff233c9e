"""Tars, read in place; see `archives.open_archive`.

A compressed tar can only be read from its start to its end, and images are read in the
order of their labels: it is unpacked to a temporary file first.
"""

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archive_entries
from yolov3_tf2.files.positional_file import open_positional

_CHUNK_BYTES = 2**20
_OPEN_BY_START = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# Each entry has a header of a block, with this text in it.
_BLOCK_BYTES, _MAGIC, _MAGIC_OFFSET = 512, b"ustar", 257

# What a damaged file raises, depending on its compression.
_DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


def is_tar(path):
    """Returns whether a file is a tar, compressed or not, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(_BLOCK_BYTES)
    opener = _find_opener(start)
    if opener:
        try:
            with opener(path, "rb") as file:
                start = file.read(_BLOCK_BYTES)
        except _DAMAGE:
            return path.name.lower().endswith(".tgz") or ".tar." in path.name.lower()
    return start.startswith(_MAGIC, _MAGIC_OFFSET)


class Tar:
    """A tar that is open for reading, with the attributes of `archives.Zip`."""

    def __init__(self, path):
        self.name = str(path)
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(self._open(path))
                self._places = self._list_files()
            except _DAMAGE as error:
                raise InputError(
                    f"{path}: cannot read this tar ({error}); is the download complete?"
                ) from error
            self._open_file = stack.pop_all()
        self.files = [n for n in self._places if not archive_entries.is_hidden(n)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._open_file.close()

    def read(self, name, limit=archive_entries.MAX_ENTRY_BYTES):
        """Reads one file; see `archives.Zip.read`."""
        archive_entries.check_size(self.name, name, self._places[name][1], limit)
        return self._read(name)

    def read_start(self, name, number):
        """Returns the first bytes of a file; see `archives.Zip.read_start`."""
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
                archive_entries.check_growth(self.name, packed_bytes, unpacked_bytes)
                unpacked.write(chunk)
            unpacked.flush()
            # It stays on the disk until it is closed, without a name.
            return open_positional(Path(unpacked.name))

    def _list_files(self):
        """Returns a dict from name to the place and size of its bytes."""
        places = {}
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for member in tar:
                name = self._check_member(member)
                if member.isreg():
                    if name in places:
                        reason = "is there twice"
                        raise archive_entries.refuse_entry(self.name, name, reason)
                    places[name] = (member.offset_data, member.size)
                tar.members.clear()  # It keeps 1 kB for each.
        return places

    def _check_member(self, member):
        raw = member.name.encode("utf-8", "surrogateescape")
        name = archive_entries.decode_name(raw) or raw.decode("utf-8", "replace")
        name = name.replace("\\", "/").removeprefix("./")
        reason = ""
        if archive_entries.leaves_archive(name):
            reason = "leaves the archive; expected a path inside it"
        elif not (member.isreg() or member.isdir()):
            reason = "is a link or a device; expected a file"
        elif member.sparse is not None:
            reason = "is stored with gaps; expected a whole file"
        if reason:
            raise archive_entries.refuse_entry(self.name, name, reason)
        return name


def _find_opener(start):
    """Returns the function that opens a compressed file; None for any other."""
    found = (f for magic, f in _OPEN_BY_START.items() if start.startswith(magic))
    return next(found, None)

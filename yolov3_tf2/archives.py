"""Zip archives: open one, list it, read an entry, find the picture of a data key."""

import lzma
import unicodedata
import zipfile
import zlib
from pathlib import PurePosixPath

from yolov3_tf2.errors import InputError


def open_zip(path):
    """Opens a zip for reading.

    Raises:
        InputError: it is none.
    """
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            start = file.read(12)
        raise InputError(
            f"{path} is not a zip archive (starts with {start!r}, {error}): the "
            "download is cut off, or its link had expired; export again."
        ) from error


def list_files(archive):
    """Names of the files in a zip, without folders and what macOS adds."""
    return [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not _is_hidden(name)
    ]


def read_entry(archive, name):
    """Reads one entry of an open zip.

    Raises:
        InputError: its checksum is wrong, or it is encrypted.
    """
    try:
        return archive.read(name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,  # bzip2's
        EOFError,
        RuntimeError,  # encrypted
        NotImplementedError,
    ) as error:
        raise InputError(
            f"{archive.filename}: cannot read '{name}': {error}; is the archive "
            "damaged or encrypted?"
        ) from error


def normalise(path):
    """One spelling of a path: forward slashes, none in front, composed characters."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return "/".join(part for part in path.split("/") if part)


class PictureIndex:
    """Finds the picture of a (dataset, data_key) among the entries of the zips."""

    def __init__(self, archives):
        """Lists the entries of open zips."""
        self._by_name = {}
        self._position = {}
        for archive in archives:
            for entry in list_files(archive):
                self._position[archive, entry] = len(self._position)
                path = normalise(entry)
                base = PurePosixPath(path)
                # Under its name and its name without the extension that the Suite
                # may have appended.
                for name in {base.name, base.stem}:
                    self._by_name.setdefault(name, []).append((archive, entry, path))

    def position(self, item):
        """The place of an item's picture in the order of the zips."""
        return self._position[item.archive, item.entry]

    def find(self, dataset, key):
        """Returns (archive, entry), or None where there is no such picture.

        A path that has the dataset too goes before one that has not, the key as it is
        before the key with an extension more, and a shallow path before a deep one:
        `P/a.jpg` is the picture of `a.jpg`, and `P/sub/a.jpg` that of `sub/a.jpg`.

        Raises:
            InputError: several entries fit equally well.
        """
        ranked = {}
        for archive, entry, path in self._by_name.get(PurePosixPath(key).name, ()):
            stem = str(PurePosixPath(path).with_suffix(""))
            for rank, name in enumerate((f"{dataset}/{key}", key)):
                for extra, ending in enumerate((path, stem)):
                    if f"/{ending}".endswith(f"/{name}"):
                        place = (rank, extra, path.count("/"))
                        ranked.setdefault(place, []).append((archive, entry))
        if not ranked:
            return None
        best = ranked[min(ranked)]
        if len(best) > 1:
            raise InputError(
                f"'{key}' of dataset '{dataset}' matches {len(best)} pictures: "
                + ", ".join(f"{a.filename}: {e}" for a, e in best)
            )
        return best[0]

    def check_used_once(self, items):
        """Raises an `InputError` if two items have the same picture."""
        used = {}
        for item in items:
            other = used.setdefault((item.archive, item.entry), item)
            if other is not item:
                raise InputError(
                    f"{item.archive.filename}: {item.entry} is the picture of both "
                    f"{other.source_id} and {item.source_id}; expected one for each."
                )


def _is_hidden(name):
    """Tells whether a path is one that macOS or an editor left, and no picture."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)

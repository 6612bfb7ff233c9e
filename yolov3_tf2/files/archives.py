"""Zips, tars and folders: list the files and read them in place."""

import os
from pathlib import Path

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.archive_entries import MAX_ENTRY_BYTES, check_size, is_hidden
from yolov3_tf2.files.name_encodings import known_parts
from yolov3_tf2.files.tars import Tar, is_tar
from yolov3_tf2.files.zips import Zip


def open_archive(path):
    """Opens a zip, a folder, or a list of files as a folder that holds only these.

    Args:
        path: a `pathlib.Path` of a zip, tar or folder, or a list of paths of files.

    Returns:
        A `Zip`, a `Tar` or a `Folder`. All are context managers and have `name`, for
        error messages; `files`, a list of the names of their files, without the files
        that macOS and editors add; `read` and `read_start`; and `choose_encoding`.

    Raises:
        InputError: the file is not a zip, or cannot be read safely.
    """
    if isinstance(path, list):
        return Folder(Path(os.path.commonpath([file.parent for file in path])), path)
    if path.is_dir():
        return Folder(path)
    return Tar(path) if is_tar(path) else Zip(path)


def is_archive(path):
    """Returns whether a path is a folder, a zip or a tar, which the content says."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        return True
    with path.open("rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
            return True
    return is_tar(path)


def choose_encodings(opened, paths):
    """Decodes the names of files anew where an archive does not declare their encoding.

    Of several encodings, each archive takes the one in which most names are known. Its
    `files` may change.

    Args:
        opened: list of open archives.
        paths: iterable of the paths that its files are known to have.
    """
    if any(archive.has_undeclared_names for archive in opened):
        known = known_parts(paths)
        for archive in opened:
            archive.choose_encoding(known)


class Folder:
    """A folder with all its subfolders, or some of its files; see `open_archive`."""

    has_undeclared_names = False

    def __init__(self, path, paths=None):
        self.name = str(path)
        self._path = path
        if paths is None:
            paths = list(_walk(path))
        # A dict, as a file may be given twice.
        names = dict.fromkeys(f.relative_to(path).as_posix() for f in sorted(paths))
        self.files = [name for name in names if not is_hidden(name)]
        for name in self.files:
            if not name.isascii() and name != name.encode("utf-8", "replace").decode():
                raise InputError(f"{path}: the file name {name!r} is not UTF-8.")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        pass

    def choose_encoding(self, known):
        """Does nothing, as the system declares the encoding; see `Zip`."""

    def read(self, name, limit=MAX_ENTRY_BYTES):
        """Reads one file; see `Zip.read`."""
        path = self._path / name
        try:
            check_size(self.name, name, path.stat().st_size, limit)
            return path.read_bytes()
        except OSError as error:
            raise self._unreadable(name, error) from error

    def read_start(self, name, number):
        """Returns the first bytes of a file; see `Zip.read_start`."""
        try:
            with (self._path / name).open("rb") as file:
                return file.read(number)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name, error):
        return InputError(
            f"{self.name}: cannot read '{name}': {error.strerror or error}."
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

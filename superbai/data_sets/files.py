"""The files of an annotated data set, wherever they lie: archives, folders, files."""

import itertools
import re
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from typing import NamedTuple

from superbai.splits import SPLIT_OF_TAG
from yolov3_tf2.files import archives
from yolov3_tf2.files.image_kinds import is_image, is_image_name
from yolov3_tf2.names import normalise_path, normalise_slashes

# Files of labels and what describes them: no image, without a look inside.
LABEL_ENDINGS = frozenset(
    f".{name}" for name in ("txt", "xml", "json", "yaml", "yml", "names", "data", "csv")
)
# Other words for the splits, as names of folders.
_WORDS = {"training": "train", "testing": "test", "dev": "validation"}
_ARCHIVE_ENDING = re.compile(
    r"\.(zip|tgz|txz|tbz2?|tzst|tar(\.(gz|xz|bz2|zst))?)$", re.IGNORECASE
)


class File(NamedTuple):
    """A file of a data set.

    Attributes:
        number: its position among all of them.
        archive: the open archive that holds it.
        name: its name there.
        path: its normalised name.
        is_image: whether it is an image, or was meant to be one.
    """

    number: int
    archive: archives.Zip | archives.Folder
    name: str
    path: str
    is_image: bool

    @property
    def where(self):
        """What to call the file in a message."""
        return f"{self.archive.name}: {self.name}"

    @property
    def folder(self):
        """Its folder with a slash at the end; empty at the top."""
        return self.path[: len(self.path) - len(self.base)]

    @property
    def base(self):
        """Its name without folders."""
        return self.path.rpartition("/")[2]

    @property
    def ending(self):
        """Its extension in lower case, with the dot."""
        return ending(self.path)

    def read(self, limit=archives.MAX_ENTRY_BYTES):
        """Returns its bytes; see `archives.Zip.read`."""
        return self.archive.read(self.name, limit)

    def read_start(self, number):
        """Returns its first bytes; see `archives.Zip.read_start`."""
        return self.archive.read_start(self.name, number)


class DataSetFiles:
    """All files that are given as labels and as images.

    Attributes:
        name: what to call the labels in an error.
        labels: list of the `File` that are given as labels.
        images: list of the `File` that are images, from both.
        others: list of the other `File` from both.
    """

    def __init__(self, name, labels, images):
        """Lists them.

        Args:
            name: what to call the labels in an error.
            labels: list of open archives, see `open_archives`, which it closes.
            images: the same of what is given as images; may be empty.
        """
        self.name, self._archives = name, [*labels, *images]
        self._labels, self._images = labels, images
        # Each archive has its own encoding; names are compared in different ones.
        declared = [a for a in self._archives if not a.has_undeclared_names]
        known = [name for archive in declared for name in archive.files]
        known += map(without_ending, known[:])
        if not all(map(str.isascii, known)):
            archives.choose_encodings(self._archives, known)
        self._list_files()

    def choose_encodings(self, paths):
        """Decodes the names of files anew, as paths are known from the labels.

        See `archives.choose_encodings`; the lists of files are new ones.
        """
        if not all(map(str.isascii, paths)):
            archives.choose_encodings(self._archives, paths)
            self._list_files()

    def _list_files(self):
        numbers = itertools.count()
        self.labels, self.given_as_images = (
            [
                File(next(numbers), a, name, normalise_path(name), _is_image(a, name))
                for a in opened
                for name in a.files
            ]
            for opened in (self._labels, self._images)
        )
        everything = [*self.labels, *self.given_as_images]
        self.images = [file for file in everything if file.is_image]
        self.others = [file for file in everything if not file.is_image]
        self._splits = {}
        # Paths that differ in the Unicode form alone.
        numbers = Counter((id(file.archive), file.path) for file in self.images)
        self._in_two_forms = {path for path, number in numbers.items() if number > 1}
        self._name_counts = len({id(file.archive) for file in self.images}) > 1

    def close(self):
        """Closes the archives."""
        for archive in self._archives:
            archive.close()

    def identity(self, file):
        """Returns a path that no other image has."""
        is_twice = (id(file.archive), file.path) in self._in_two_forms
        path = normalise_slashes(file.name) if is_twice else file.path
        if self._name_counts:
            return f"{archive_stem(file.archive.name)}/{path}"
        return path

    def split_of(self, file):
        """Returns the split that a folder of a file names; None without such a folder.

        The innermost one counts. The names of archives count as folders where several
        hold images: `train.zip` and `val.zip`.
        """
        folders = self.identity(file).rpartition("/")[0]
        if folders not in self._splits:
            parts = reversed(folders.split("/"))
            self._splits[folders] = next(filter(None, map(split_of_name, parts)), None)
        return self._splits[folders]


def archive_stem(name):
    """Returns the name of an archive without folders and extension.

    Example:
        >>> archive_stem("/data/train.tar.gz"), archive_stem("v1.2")
        ('train', 'v1.2')
    """
    return _ARCHIVE_ENDING.sub("", PurePath(name).name)


def split_of_name(name):
    """Returns the split that a name stands for, with or without a year; None if none.

    Example:
        >>> split_of_name("val2017"), split_of_name("images")
        ('validation', None)
    """
    word = re.sub(r"_?[0-9]*$", "", name).lower()
    return SPLIT_OF_TAG.get(_WORDS.get(word, word))


def split_of_words(name):
    """Returns the split that a word of a file name stands for; None if none.

    Example:
        >>> split_of_words("instances_val2017.json")
        'validation'
    """
    words = re.split(r"[^A-Za-z0-9]+", name.rpartition(".")[0])
    return next(filter(None, map(split_of_name, words)), None)


def ending(path):
    """Returns the extension of a path in lower case, with the dot; empty if none."""
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    return dot + extension.lower() if stem else ""


def without_ending(path):
    """Returns a path without its extension."""
    length = len(ending(path))
    return path[:-length] if length else path


def _is_image(archive, name):
    if is_image_name(name):
        return True
    return ending(name) not in LABEL_ENDINGS and is_image(archive, name)


@contextmanager
def open_archives(paths):
    """Context with a list of open archives, the last one of all files that are none.

    They are closed if it ends by an exception, and left open otherwise.

    Args:
        paths: list of `pathlib.Path`: zips, tars, folders and files.

    Raises:
        InputError: an archive cannot be read.
    """
    loose = [path for path in paths if not archives.is_archive(path)]
    loose_set = set(loose)
    groups = [p for p in paths if p not in loose_set] + [loose] * bool(loose)
    with ExitStack() as stack:
        yield [stack.enter_context(archives.open_archive(group)) for group in groups]
        stack.pop_all()

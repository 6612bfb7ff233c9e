"""The forms that image archives have, and what each file is under each of them.

An image with the dataset `ds` and the data key `a.jpg` may lie at `ds/a.jpg`,
`Project/ds/images/a.jpg.jpg`, `Project/a.jpg` or, in a zip of its own, `ds.zip: a.jpg`.
A form is such a pattern. Under a form, a file reads as one image at most.
"""

from array import array
from functools import lru_cache, partial
from pathlib import PurePath
from typing import NamedTuple

from superbai.matching.label_names import without_extension
from yolov3_tf2.files.archives import Folder, Zip
from yolov3_tf2.names import normalise_path, normalise_slashes

# Where a form has the name of the dataset.
NOWHERE, FOLDER, ARCHIVE = "", "folder", "archive"


class Entry(NamedTuple):
    """A file in an archive.

    Attributes:
        number: its position in the order of the archives.
        archive: the archive that holds it.
        name: its name there.
        path: its normalised name below the archive's own name without extension.
    """

    number: int
    archive: Zip | Folder
    name: str
    path: str


class Form(NamedTuple):
    """Where an archive has the image of a dataset and a key.

    Attributes:
        folders: the folders before the dataset, or before the key; "" if none.
        dataset: `NOWHERE`, `FOLDER`, or `ARCHIVE` if the archive is named like it.
        below: the folders between the dataset and the key; "" if none.
        has_extension: whether an extension was added to the key.
    """

    folders: str
    dataset: str
    below: str
    has_extension: bool

    def __str__(self):
        dataset = "<dataset>" if self.dataset == FOLDER else ""
        path = "/".join(filter(None, (self.folders, dataset, self.below, "<key>")))
        path += ".jpg" * self.has_extension
        return f"<dataset>.zip: {path}" if self.dataset == ARCHIVE else path


class Readings:
    """What each file may be under each form: pairs of a file and a target.

    A pair is a number, the index into the first four attributes.

    Attributes:
        files, targets, form_numbers: arrays of integers, one for each pair.
        allowed: whether the names of the folders and of the archive allow the pair: one
            that is named like a dataset holds no images of others.
        entries: list of all `Entry`.
        forms: list of `Form`.
        of_form: list of the pairs of each form.
        dataset_lengths: set of the numbers of folders that datasets are named after:
            a name may have slashes.
    """

    def __init__(self, labels, archives):
        self._labels = labels
        self.dataset_lengths = {1 + name.count("/") for name in labels.datasets}
        self.files, self.targets, self.form_numbers = (array("l") for _ in range(3))
        self.allowed = bytearray()
        self.entries, self.forms, self.of_form = [], [], []
        self._form_numbers, self._first_pairs = {}, array("l")
        # The pairs of a label are a linked list, 16 bytes for each.
        self._last_pairs = array("l", [-1]) * len(labels.identities)
        self._previous_pairs = array("l")
        # A method would refer to this object for ever.
        find = partial(find_places, labels.datasets, self.dataset_lengths)
        self.find_places = lru_cache(1024)(find)
        for archive in archives:
            own_name = _own_name(archive, labels.dataset_names)
            for name in archive.files:
                path = normalise_path(f"{own_name}/{name}")
                self.entries.append(Entry(len(self.entries), archive, name, path))
                self._first_pairs.append(len(self.files))
                self._read(self.entries[-1])
        self._first_pairs.append(len(self.files))

    def of_file(self, file):
        """Returns the pairs of a file."""
        return range(self._first_pairs[file], self._first_pairs[file + 1])

    def of_label(self, label):
        """Yields the pairs of a label; not those of groups that it is in."""
        pair = self._last_pairs[label]
        while pair >= 0:
            yield pair
            pair = self._previous_pairs[pair]

    def find_form(self, form):
        """Returns the number of a form, None if no file has it."""
        return self._form_numbers.get(form)

    def names_in(self, folders):
        """Returns the datasets that some of these folders are named like, a set."""
        return {place.dataset for place in self.find_places(folders)}

    def _read(self, entry):
        for has_extension in (False, True):
            path = without_extension(entry.path) if has_extension else entry.path
            slash = path.find("/")
            while slash >= 0:
                folders, key = path[:slash], path[slash + 1 :]
                slash = path.find("/", slash + 1)
                if key not in self._labels:
                    continue
                places = self.find_places(folders)
                for place in places:
                    form = place.form(has_extension)
                    written = place.written(entry) if self._labels.has_twins else None
                    target = self._labels.find(place.dataset, key, entry.name, written)
                    self._add(entry.number, form, target, place.is_allowed)
                form = Form(folders.partition("/")[2], NOWHERE, "", has_extension)
                target = self._labels.find_key(key, entry.name)
                self._add(entry.number, form, target, not places)

    def _add(self, file, form, target, is_allowed):
        if target is None:
            return
        number = self._form_numbers.setdefault(form, len(self.forms))
        if number == len(self.forms):
            self.forms.append(form)
            self.of_form.append(array("l"))
        pair = len(self.files)
        self.files.append(file)
        self.targets.append(target)
        self.form_numbers.append(number)
        self.allowed.append(is_allowed)
        self.of_form[number].append(pair)
        previous = -1
        if not self._labels.is_group(target):
            previous, self._last_pairs[target] = self._last_pairs[target], pair
        self._previous_pairs.append(previous)


class _Place(NamedTuple):
    """The name of a dataset in the path of a file; see `Form`."""

    dataset: str
    start: int
    folders: str
    kind: str
    below: str
    is_allowed: bool

    def form(self, has_extension):
        return Form(self.folders, self.kind, self.below, has_extension)

    def written(self, entry):
        """Returns the dataset as it is written, in its Unicode form."""
        if self.kind == ARCHIVE:
            name = PurePath(entry.archive.name).name
            return name[: len(name) - len(PurePath(name).suffix)]
        parts = normalise_slashes(entry.name).split("/")
        end = self.start + self.dataset.count("/")
        return "/".join(parts[self.start - 1 : end])


def find_places(datasets, lengths, folders):
    """Returns a `_Place` for each name of a dataset in a path of folders.

    Args:
        datasets: set of names.
        lengths: set of the numbers of folders that they have.
        folders: the path; its first part is the archive's own name.
    """
    parts = folders.split("/")
    found = [
        (start, start + length, name)
        for start in range(len(parts))
        for length in lengths
        if (name := "/".join(parts[start : start + length])) in datasets
        # The archive's own name and a folder make no name together.
        and (length == 1 or 0 < start <= len(parts) - length)
    ]
    return tuple(
        _Place(
            name,
            start,
            "/".join(parts[1:start]),
            FOLDER if start else ARCHIVE,
            "/".join(parts[end:]),
            # No other name comes after this one, or is longer than it.
            not any(
                other != name
                and (other_end > end or other_end == end and other_start < start)
                for other_start, other_end, other in found
            ),
        )
        for start, end, name in found
    )


def _own_name(archive, datasets):
    """Returns what an archive is called: without extension, unless a dataset has it."""
    path = PurePath(normalise_path(PurePath(archive.name).name))
    if not path.name:  # A folder given as `.`, whose name is not known.
        return "."
    if isinstance(archive, Folder) or path.name in datasets:
        return path.name
    return path.stem if path.stem in datasets else path.stem.removesuffix(".tar")

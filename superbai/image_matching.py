"""Finds the image file of each label of an export.

A label has a dataset and a data key; an image is a file in one of the archives. Passes
run in this order, and each one looks at the labels and files that are left:

1. `<dataset>/<key>`: the path of the file ends in it.
2. `<key>`, somewhere below a folder with the name of the dataset.
3. `<key>`, below no folder with the name of any dataset.
4. The file name alone, where exactly one label and one file have it.

Passes 1 to 3 run twice, for the exact path and for the path without one extension,
because the Suite's download usually appends one: `a.jpg.jpg`. The form that fits more
labels goes first. Of several files in one pass, those in the fewest folders count; if
their contents differ, the image is ambiguous.
"""

from collections import Counter, defaultdict
from functools import cached_property, partial
from pathlib import PurePath
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.archives import Folder, Zip
from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.names import normalise_path


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


class Match(NamedTuple):
    """Which image belongs to which label.

    Attributes:
        entries: dict from (dataset, data_key) to `Entry`, of the labels with an image.
        by_name: set of those that were found by their file name alone.
        rest: list of the entries that belong to no label.
    """

    entries: dict[tuple[str, str], Entry]
    by_name: set[tuple[str, str]]
    rest: list[Entry]


_BY_NAME = "file name"


def _passes(files):
    """Returns the passes in order: a name, and what finds the free files of a label."""
    first, second = files.forms
    return (
        ("dataset and key", partial(files.of_dataset_and_key, first)),
        ("dataset and key, other form", partial(files.of_dataset_and_key, second)),
        ("key below the dataset", partial(files.of_key_below_dataset, first)),
        ("key below it, other form", partial(files.of_key_below_dataset, second)),
        ("key below no dataset", partial(files.of_key_below_no_dataset, first)),
        ("key below none, other form", partial(files.of_key_below_no_dataset, second)),
        (_BY_NAME, files.of_file_name),
    )


def match_images(identities, archives, needed):
    """Finds the image of each (dataset, data_key); the module describes the rules.

    All labels of an export take part, also those that are not converted: their images
    do not belong to other labels.

    Args:
        identities: list of (dataset, data_key), each once.
        archives: list of open archives.
        needed: the identities that are converted; others may be ambiguous.

    Returns:
        A `Match`.

    Raises:
        InputError: different images fit a needed label equally well, or one image fits
            several labels.
    """
    files = _Files(archives, identities)
    matched, pass_of = {}, {}
    for name, find in _passes(files):
        claims = {}
        for identity in identities:
            if identity not in matched:
                claims[identity] = _least_deep(find(*identity))
        for identity, entries in claims.items():
            if len(entries) > 1 and _are_different(entries):
                if identity in needed:
                    raise _ambiguous(identity, entries)
                continue
            # Several files with the same content are used one after the other.
            free = files.free(entries)
            if name == _BY_NAME:
                free = entries  # The file `a.jpg` can be that of both `a` and `a.jpg`.
            if free:
                matched[identity], pass_of[identity] = free[0], name
                files.taken.add(free[0].number)
            elif entries:
                raise _claimed_twice(entries[0], identity, matched)
    by_name = {identity for identity in matched if pass_of[identity] == _BY_NAME}
    return Match(matched, by_name, files.free(files.entries))


class _Files:
    """The files of the archives, and which of them belong to a label already.

    Its methods `of_...` return a list of the free entries that fit a label.

    Attributes:
        entries: list of all `Entry`.
        taken: set of the numbers of those that belong to a label.
        forms: two `_PathEndings`: first the one that fits more labels.
    """

    def __init__(self, archives, identities):
        names = [(archive, name) for archive in archives for name in archive.files]
        self.entries = [
            Entry(
                number,
                archive,
                name,
                normalise_path(f"{PurePath(archive.name).stem}/{name}"),
            )
            for number, (archive, name) in enumerate(names)
        ]
        self.taken = set()
        exact = _PathEndings(self.entries, str)
        shorter = _PathEndings(self.entries, _without_extension)
        self.forms = (exact, shorter)
        if _count_fits(identities, shorter) > _count_fits(identities, exact):
            self.forms = (shorter, exact)
        self._datasets = {dataset for dataset, _ in identities if dataset}
        self._nested_datasets = [name for name in self._datasets if "/" in name]
        self._num_labels = Counter(_last_parts(key, 1) for _, key in identities)

    def free(self, entries):
        return [entry for entry in entries if entry.number not in self.taken]

    def of_dataset_and_key(self, form, dataset, key):
        return self.free(entry for _, entry in form.find(f"{dataset}/{key}"))

    def of_key_below_dataset(self, form, dataset, key):
        return self.free(
            entry
            for folders, entry in form.find(key)
            if dataset and f"/{dataset}/" in folders
        )

    def of_key_below_no_dataset(self, form, dataset, key):
        return self.free(
            entry for folders, entry in form.find(key) if not self._has_dataset(folders)
        )

    def of_file_name(self, dataset, key):
        name = _last_parts(key, 1)
        if self._num_labels[name] > 1:
            return []
        fitting = {e.number: e for form in self.forms for _, e in form.find(name)}
        free = self.free(fitting.values())
        return free if len(free) == 1 else []

    def _has_dataset(self, folders):
        # The archive's own name comes first and is not a folder.
        return bool(self._datasets & set(folders.split("/")[1:])) or any(
            f"/{name}/" in folders for name in self._nested_datasets
        )


class _PathEndings:
    """Finds the entries whose paths end in a given path."""

    def __init__(self, entries, form):
        """Lists entries.

        Args:
            entries: list of `Entry`.
            form: a function from a path to what is compared; to an empty one if the
                entry does not take part.
        """
        self._entries = entries
        self._form = form

    def find(self, path):
        """Returns pairs of the folders before `path`, and the entry that ends in it."""
        has_folder = "/" in path
        entries_by = self._by_two_parts if has_folder else self._by_one_part
        found = []
        for entry in entries_by.get(_last_parts(path, 1 + has_folder), ()):
            full = self._form(entry.path)
            if f"/{full}".endswith(f"/{path}"):
                found.append((full[: -len(path)], entry))
        return found

    @cached_property
    def _by_two_parts(self):
        return self._by_last_parts(2)

    # Not needed where all images are in the folders of their datasets.
    @cached_property
    def _by_one_part(self):
        return self._by_last_parts(1)

    def _by_last_parts(self, number):
        entries_by = defaultdict(list)
        for entry in self._entries:
            path = self._form(entry.path)
            if path:
                entries_by[_last_parts(path, number)].append(entry)
        return entries_by


def _count_fits(identities, form):
    """Returns how many keys fit, in the folder of their dataset if any does."""
    number = sum(bool(form.find(f"{dataset}/{key}")) for dataset, key in identities)
    return number or sum(bool(form.find(key)) for _, key in identities)


def _least_deep(entries):
    depth = min((entry.path.count("/") for entry in entries), default=0)
    return [entry for entry in entries if entry.path.count("/") == depth]


def _are_different(entries):
    return len({entry.archive.read(entry.name) for entry in entries}) > 1


def _last_parts(path, number):
    return "/".join(path.rsplit("/", number)[-number:])


def _without_extension(path):
    """Returns a path without the extension of an image; empty if it has none."""
    return path.rpartition(".")[0] if is_image_name(path) else ""


def _ambiguous(identity, entries):
    dataset, key = identity
    listed = ", ".join(f"{entry.archive.name}: {entry.name}" for entry in entries)
    return InputError(
        f"'{key}' of dataset '{dataset}' matches {len(entries)} different images: "
        f"{listed}; rename the folder of the right one to the name of the dataset."
    )


def _claimed_twice(entry, identity, matched):
    (other,) = [key for key, value in matched.items() if value == entry]
    return InputError(
        f"{entry.archive.name}: {entry.name} is the image of both "
        f"{'/'.join(filter(None, other))} and {'/'.join(filter(None, identity))}; "
        "expected one for each."
    )

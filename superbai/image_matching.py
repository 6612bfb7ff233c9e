"""Finds the pictures of the Suite's data keys among the files of archives."""

from collections import Counter, defaultdict
from functools import cached_property
from pathlib import PurePath
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.archives import Folder, Zip
from yolov3_tf2.files.images import is_image_name
from yolov3_tf2.names import normalise_path


class Entry(NamedTuple):
    """A file of an archive.

    Attributes:
        number: its place in the order of the archives.
        archive: the archive that it lies in.
        name: its name there.
        path: its name, normalised, below the archive's own name without its ending.
    """

    number: int
    archive: Zip | Folder
    name: str
    path: str


class Match(NamedTuple):
    """Which picture is whose.

    Attributes:
        entries: a dict from (dataset, data_key) to an `Entry`, of those that have one.
        by_name: those of them that were told by their file name alone, a set.
        rest: list of the entries that are nobody's.
    """

    entries: dict[tuple[str, str], Entry]
    by_name: set[tuple[str, str]]
    rest: list[Entry]


def match_images(identities, archives, wanted):
    """Gives each (dataset, data_key) its picture.

    All labels of an export take part, also those that are left out: a picture that is
    theirs is not another's. The surest ways to tell a picture come first: by dataset
    and key, then by the key below a folder of the dataset's name, then by the key
    below no folder of another dataset's name, at last by a file name that one label
    and one file have. In each of them the least deep file goes first, so that
    `P/a.jpg` is the picture of `a.jpg`, and `P/sub/a.jpg` that of `sub/a.jpg`.

    The Suite's download usually appends an extension to the key, `a.jpg.jpg`. Whether
    it did is told by all keys together: where more of them fit so, that is tried first.

    Args:
        identities: list of (dataset, data_key), each once.
        archives: list of open archives.
        wanted: set of those that will be read; others may have several pictures.

    Raises:
        InputError: several pictures fit a key equally well, or one fits several keys.
    """
    paths = [(archive, name) for archive in archives for name in archive.files]
    entries = [
        Entry(
            number,
            archive,
            name,
            normalise_path(f"{PurePath(archive.name).stem}/{name}"),
        )
        for number, (archive, name) in enumerate(paths)
    ]
    exact, longer = _Endings(entries, str), _Endings(entries, _without_extension)
    numbers = [_count(identities, endings) for endings in (exact, longer)]
    endings_in_turn = (longer, exact) if numbers[1] > numbers[0] else (exact, longer)
    found, taken = {}, set()
    for candidates in (_by_dataset, _below_dataset, _BelowNoOther(identities)):
        for endings in endings_in_turn:
            claims = {}
            for identity in identities:
                if identity not in found:
                    fitting = candidates(endings, *identity)
                    fitting = [e for e in fitting if e.number not in taken]
                    if fitting:
                        claims[identity] = _least_deep(fitting)
            for identity, fitting in claims.items():
                if len(fitting) > 1 and _are_different(fitting):
                    if identity in wanted:
                        raise _ambiguous(identity, fitting)
                    continue
                # Of equal pictures the first that is nobody's.
                left = [entry for entry in fitting if entry.number not in taken]
                if not left:
                    raise _shared(fitting[0], identity, found)
                found[identity] = left[0]
                taken.add(left[0].number)

    by_name = _find_by_name(identities, entries, found, taken)
    found |= by_name
    taken |= {entry.number for entry in by_name.values()}
    rest = [entry for entry in entries if entry.number not in taken]
    return Match(found, set(by_name), rest)


class _Endings:
    """Finds the entries whose paths end in a given path."""

    def __init__(self, entries, form):
        """Lists entries.

        Args:
            entries: list of `Entry`.
            form: a function from a path to how it is compared; to an empty one where
                it is not.
        """
        self._entries = entries
        self._form = form

    def find(self, path):
        """Returns pairs of the folders before `path`, and the entry that ends in it."""
        has_folder = "/" in path
        by = self._by_two if has_folder else self._by_one
        found = []
        for entry in by.get(_last(path, 1 + has_folder), ()):
            full = self._form(entry.path)
            if f"/{full}".endswith(f"/{path}"):
                found.append((full[: -len(path)], entry))
        return found

    @cached_property
    def _by_two(self):
        return self._list(2)

    # Not made where all pictures lie in folders of their datasets.
    @cached_property
    def _by_one(self):
        return self._list(1)

    def _list(self, number):
        """Lists the entries by the last parts of their paths."""
        by = defaultdict(list)
        for entry in self._entries:
            path = self._form(entry.path)
            if path:
                by[_last(path, number)].append(entry)
        return by


def _by_dataset(endings, dataset, key):
    return [entry for _, entry in endings.find(f"{dataset}/{key}")]


def _below_dataset(endings, dataset, key):
    return [
        entry
        for before, entry in endings.find(key)
        if dataset and f"/{dataset}/" in before
    ]


class _BelowNoOther:
    """Finds a key in folders that are of no dataset."""

    def __init__(self, identities):
        self._datasets = {dataset for dataset, _ in identities if dataset}
        self._of_several = [name for name in self._datasets if "/" in name]

    def __call__(self, endings, dataset, key):
        return [e for before, e in endings.find(key) if not self._has_dataset(before)]

    def _has_dataset(self, before):
        # But for the archive's own name, which comes first.
        return bool(self._datasets & set(before.split("/")[1:])) or any(
            f"/{name}/" in before for name in self._of_several
        )


def _find_by_name(identities, entries, found, taken):
    """Returns a dict of the identities whose file name one other and one file have."""
    names = Counter(_last(key, 1) for _, key in identities)
    left = defaultdict(list)
    for entry in entries:
        if entry.number not in taken:
            name = _last(entry.path, 1)
            for each in {name, _without_extension(name)}:
                left[each].append(entry)
    by_name = {}
    for identity in identities:
        name = _last(identity[1], 1)
        if identity not in found and names[name] == 1 and len(left[name]) == 1:
            by_name[identity] = left[name][0]
    return by_name


def _count(identities, endings):
    """The number of keys that end a path, in their dataset's folder if any does so."""
    number = sum(bool(_by_dataset(endings, *identity)) for identity in identities)
    return number or sum(bool(endings.find(key)) for _, key in identities)


def _least_deep(entries):
    depth = min(entry.path.count("/") for entry in entries)
    return [entry for entry in entries if entry.path.count("/") == depth]


def _are_different(entries):
    return len({entry.archive.read(entry.name) for entry in entries}) > 1


def _last(path, number):
    return "/".join(path.rsplit("/", number)[-number:])


def _without_extension(path):
    """A path without the extension of a picture; empty where it has none."""
    return path.rpartition(".")[0] if is_image_name(path) else ""


def _ambiguous(identity, entries):
    dataset, key = identity
    listed = ", ".join(f"{entry.archive.name}: {entry.name}" for entry in entries)
    return InputError(
        f"'{key}' of dataset '{dataset}' matches {len(entries)} different pictures: "
        f"{listed}."
    )


def _shared(entry, identity, found):
    (other,) = [key for key, value in found.items() if value == entry]
    return InputError(
        f"{entry.archive.name}: {entry.name} is the picture of both "
        f"{'/'.join(filter(None, other))} and {'/'.join(filter(None, identity))}; "
        "expected one for each."
    )

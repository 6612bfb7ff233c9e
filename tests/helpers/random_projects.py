"""Random projects with archives of their images, whose names collide on purpose.

Every project is a function of its number. Its archives are in memory: a few thousand
are matched in a second.
"""

import random
import unicodedata
from collections import Counter
from pathlib import PurePath
from typing import NamedTuple

from superbai.image_matching import match_images
from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_path

NAMES = ["a", "b", "c", "é"]
BASES = ["a", "b", "a.jpg", "b.jpg", "a.jpg.jpg", "é.jpg", "a.png", "c.jpg"]


class Archive:
    """An archive in memory, as `archives.open_archive` returns one."""

    def __init__(self, name):
        self.name, self.contents = name, {}

    @property
    def files(self):
        return list(self.contents)

    def read(self, name):
        return self.contents[name]


class Project(NamedTuple):
    """A project, the archives that were given of it, and what is right.

    Attributes:
        identities: list of the (dataset, key) of its labels.
        exact: see `match_images`.
        needed: set of those that are converted.
        archives: list of `Archive`; some may be left out, or some of their files.
        contents: dict from (dataset, key) to the bytes of its image, if it is given.
        named: how the images of a dataset lie apart: in a `folder` or an `archive` of
            its name, or not at all, "".
        is_whole: whether all images of the labels are given.
        is_clear: whether no name means two things.
        is_plain: whether no folder or archive is named like a dataset but those that
            hold its images, and no two labels have one path or one name in NFC.
    """

    identities: list
    exact: dict
    needed: set
    archives: list
    contents: dict
    named: str
    is_whole: bool
    is_clear: bool
    is_plain: bool


def make_project(number, *, unlabelled=0.0, only_dataset_folders=False):
    """Returns a random `Project`.

    Args:
        number: of the project.
        unlabelled: the share of images that have no label.
        only_dataset_folders: whether images lie in folders of their datasets, their
            keys have none, all end alike, and all names have one Unicode form.
    """
    chance = random.Random(number)
    is_clear = chance.random() < 0.2
    names, bases = NAMES, BASES
    if only_dataset_folders:
        bases = ["a.jpg", "b.jpg", "c.jpg", "é.jpg", "d.jpg"]
    named = chance.choice(["", "folder", "folder", "archive"])
    unicode_forms = ["NFC", "NFC", "NFD"]
    if only_dataset_folders:
        named, unicode_forms = "folder", [chance.choice(unicode_forms)]

    def pick(kind):
        name = f"{kind}{chance.randrange(4)}" if is_clear else chance.choice(names)
        return unicodedata.normalize(chance.choice(unicode_forms), name)

    datasets = [pick("dataset") for _ in range(chance.randrange(1, 5))]
    datasets = list(dict.fromkeys(datasets))  # In the same order in every run.
    is_nested = not is_clear and named != "archive" and not only_dataset_folders
    if is_nested and chance.random() < 0.1:
        datasets.append("a/b")
    above = [pick("project") for _ in range(chance.choice([0, 0, 1, 1, 2]))]
    below = [pick("below") for _ in range(chance.choice([0, 0, 0, 1]))]
    if only_dataset_folders:
        below = []
    if named == "archive":
        above = []
    if not named:
        below = []
    extension = chance.choice(["", ".jpg", ".jpg", ".png"])
    archives = [
        Archive(f"/{n}/{pick('zip')}.zip") for n in range(chance.randrange(1, 4))
    ]
    per_dataset = {
        dataset: [
            Archive(f"/{n}/{dataset}.zip") for n in range(chance.choice([1, 1, 2]))
        ]
        for dataset in datasets
    }
    if named == "archive":
        archives = [each for group in per_dataset.values() for each in group]
    labelled, where = {}, {}
    for count in range(chance.choice([1, 2, 3, 5, 8, 12, 20])):
        dataset = chance.choice(datasets)
        folders = [pick("folder") for _ in range(chance.choice([0, 0, 1, 2]))]
        base = chance.choice(bases)
        if is_clear:
            base = f"{count}{chance.choice(['', '.jpg'])}"
        if only_dataset_folders:
            folders = []
        base = unicodedata.normalize(chance.choice(unicode_forms), base)
        key = "/".join([*folders, base])
        if (dataset, key) in labelled:
            continue
        parts = [*above, *[dataset] * (named == "folder"), *below, key]
        path = "/".join(parts) + extension
        group = per_dataset[dataset] if named == "archive" else archives
        archive = chance.choice(group)
        if path in archive.contents:
            continue
        content = f"{number} {count if chance.random() < 0.95 else 0}".encode()
        archive.contents[path] = content
        labelled[dataset, key] = content
        where[dataset, key] = archive, path
    for identity in [] if named else find_misleading(where, above):
        archive, path = where.pop(identity)
        del archive.contents[path], labelled[identity]
    has_label = list(labelled)
    if unlabelled:
        has_label = [each for each in labelled if chance.random() >= unlabelled]
        # All datasets have some label; the name of another could not be known.
        for dataset in dict.fromkeys(dataset for dataset, _ in labelled):
            if not any(each[0] == dataset for each in has_label):
                has_label.append(next(each for each in labelled if each[0] == dataset))
    left_out = chance.choice(["none", "archives", "archives", "files"])
    if left_out == "archives":
        archives = [archive for archive in archives if chance.random() < 0.6]
    if left_out == "files":
        for archive, path in where.values():
            if chance.random() < 0.4:
                del archive.contents[path]
    archives = [archive for archive in archives if archive.contents]
    chance.shuffle(archives)
    given = {
        identity
        for identity, (archive, path) in where.items()
        if archive in archives and path in archive.contents
    }
    identities, exact = in_nfc(has_label)
    contents = {
        name: labelled[identity]
        for name, identity in zip(identities, has_label, strict=True)
        if identity in given
    }
    needed = {each for each in identities if chance.random() < 0.8}
    if chance.random() < 0.5:
        needed = set(identities)
    is_whole = len(contents) == len(identities)
    names = [*below] if named else [*above, *(PurePath(a.name).stem for a in archives)]
    normal = {tuple(map(normalise_path, each)) for each in identities}
    is_plain = len(normal) == len(identities) and all(
        "/" not in dataset
        and f"/{dataset}/" not in f"/{normalise_path('/'.join(names))}/"
        for dataset, _ in normal
    )
    if not named:
        is_plain &= len({key for _, key in identities}) == len(identities)
    return Project(
        identities,
        exact,
        needed,
        archives,
        contents,
        named,
        is_whole,
        is_clear,
        is_plain,
    )


def find_misleading(where, above):
    """Returns the images in a folder named like another dataset that has their key.

    Without folders for datasets, nobody could tell whose image lies there.
    """
    datasets_of = {}
    for dataset, key in where:
        datasets_of.setdefault(normalise_path(key), set()).add(dataset)
    found = []
    for (dataset, key), (archive, _) in where.items():
        folders = normalise_path("/".join([PurePath(archive.name).stem, *above]))
        others = datasets_of[normalise_path(key)] - {dataset}
        if any(f"/{normalise_path(other)}/" in f"/{folders}/" for other in others):
            found.append((dataset, key))
    return found


def in_nfc(identities):
    """Returns identities as `LabelArchive` does, and their exact names."""
    normal = list(map(normal_identity, identities))
    times = Counter(normal)
    named = [
        identity if times[each] > 1 else each
        for identity, each in zip(identities, normal, strict=True)
    ]
    pairs = zip(named, identities, strict=True)
    return named, {name: identity for name, identity in pairs if name != identity}


def normal_identity(identity):
    return tuple(map(normalise_path, identity))


def check_project(project, find_by="path"):
    """Matches a project.

    Returns:
        `found` if all needed labels have their image; `missing` if not, and nothing
        else is wrong; `refused`; or `wrong` and a text, if a label has another image.
    """
    try:
        match = match_images(
            project.identities,
            project.archives,
            project.needed,
            find_by=find_by,
            exact=project.exact,
        )
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return "refused", str(error)
    for identity, entry in match.entries.items():
        content = entry.archive.read(entry.name)
        if project.contents.get(identity) != content:
            return "wrong", f"{identity} got {entry.archive.name}: {entry.name}"
    missing = project.needed - match.entries.keys()
    if missing:
        return "missing", f"{missing} {match.elsewhere}"
    return "found", ""

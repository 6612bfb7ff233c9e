"""Finds the image of each label of an annotated data set.

A label says where its image is: by a path in the file of labels, or by its own place.

1. The image lies there: beside the label, or in the folder that the format has for it;
   or there below other folders, which an archive may have around everything.
2. Otherwise it is the file with the same name, and as many of the same folders before
   it as there are. It is not the image of another label, not in the folder of another
   split, and not in a folder of other labels. If different files fit, or one file fits
   different labels, nothing is guessed.
"""

from collections import defaultdict
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from superbai.data_sets.files import File, split_of_name
from yolov3_tf2.errors import InputError

# Names of folders that do not tell images apart.
_SHARED_FOLDERS = frozenset(("", "images", "jpegimages", "labels", "annotations"))


class Labelled(NamedTuple):
    """The labels of an image, whose file is not known yet.

    Attributes:
        file: the `File` with the labels.
        source: what of the data set the labels are about; with the folder and `name`,
            it tells one image from another.
        name: the name or path of the image, as the labels have it.
        paths: list of the paths at which it lies by the rules of the format.
        split: the split that the labels name for it; None without one.
        size: (width, height) when it was labelled; None if unknown.
        boxes: [boxes, 6] float64: xyxy, the label, and whether it is drawn around
            another shape.
        reason: why the labels cannot be used; empty if they can.
        is_models: whether all of its boxes were those of a model, and so left out.
    """

    file: File
    source: str
    name: str
    paths: list[str]
    split: str | None
    size: tuple[int, int] | None
    boxes: np.ndarray
    reason: str = ""
    is_models: bool = False

    @property
    def where(self):
        """What to call the labels of this image in a message."""
        return f"{self.file.where} ({self.name})"

    @property
    def short_where(self):
        """The same without the folders that the archive is in."""
        archive = PurePath(self.file.archive.name).name
        return f"{archive}: {self.file.name} ({self.name})"

    @property
    def place(self):
        """What tells it from other labels: those of equal places have one image."""
        return (id(self.file.archive), self.file.folder, self.source, self.name)

    @property
    def folders(self):
        """Set of the names of the folders of the labels and of its image."""
        return {*self.file.folder.split("/"), *self.name.split("/")[:-1]}


class Found(NamedTuple):
    """The images of labels.

    Attributes:
        images: dict from the index of a `Labelled` to its `File`.
        by_name: how many were found by their file name alone, in another folder.
    """

    images: dict[int, File]
    by_name: int


def find_images(labelled, files, key):
    """Finds the image of each `Labelled`; the module describes the rules.

    Args:
        labelled: list of `Labelled`.
        files: a `DataSetFiles`.
        key: a function from the path of an image to what is compared.

    Returns:
        A `Found`.

    Raises:
        InputError: different images fit a label, or one image fits several labels.
    """
    by_path, strange = defaultdict(list), _strange_archives(labelled, files)
    for file in files.images:
        by_path[key(file.path)].append(file)
    images = {}
    rest = _find_each(
        range(len(labelled)),
        lambda index: _at_its_place(labelled[index], by_path, files, strange),
        images,
    )
    by_end = _free_by_end(by_path, images, labelled, rest)
    names = set().union(*(each.folders for each in labelled)) if rest else set()
    names = {name for name in names if name.lower() not in _SHARED_FOLDERS}

    def find_end(each, end):
        return _candidates(each, by_end.get(end, ()), names, files, strange)

    rest = _find_each(
        rest, lambda index: _below_folders(labelled[index], find_end, files), images
    )
    by_end = _free_by_end(by_path, images, labelled, rest)
    folders = {_folder(each.name) for each in labelled} - {""} if rest else set()
    by_name = []
    _find_each(
        rest,
        lambda index: _by_name(labelled[index], find_end, folders, files, by_name),
        images,
    )
    _check_claims(labelled, images)
    return Found(images, len(by_name))


def _find_each(indices, find, images):
    """Adds the found images of some labels; returns the indices of the others."""
    rest = []
    for index in indices:
        file = find(index)
        if file is None:
            rest.append(index)
        else:
            images[index] = file
    return rest


def _free_by_end(by_path, images, labelled, rest):
    """Returns the images that may be those of some labels and are of none yet.

    Returns:
        A dict from each end of their paths, of one part or more, to a list of
        (path, file).
    """
    bases = {_base(labelled[index].name) for index in rest}
    taken, by_end = {file.number for file in images.values()}, defaultdict(list)
    for path, found in by_path.items() if bases else ():
        if _base(path) in bases:
            free = [(path, file) for file in found if file.number not in taken]
            for end in _ends(path) if free else ():
                by_end[end] += free
    return by_end


def _ends(path):
    """Returns the ends of a path, from the whole one to its last part."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _strange_archives(labelled, files):
    """Returns the pairs of archives of which one has no images for labels of the other.

    Those are archives with labels and equal names in them, such as `cam1.zip` and
    `cam2.zip`; and one of images that is named like another one of labels.

    Returns:
        A set of (id of the archive of labels, id of the archive of images).
    """
    holders, paths = {}, defaultdict(set)
    for each in labelled:
        holders[id(each.file.archive)] = each.file.archive
        paths[id(each.file.archive)].add(each.file.path)
    if len(holders) < 2:
        return set()
    archives = {id(file.archive): file.archive for file in files.images}
    for file in files.images:
        if id(file.archive) in holders:
            paths[id(file.archive)].add(file.path)
    stems = {each: PurePath(archive.name).stem for each, archive in holders.items()}
    strange = set()
    for holder in holders:
        for other, archive in archives.items():
            if other in holders:
                is_strange = not paths[holder].isdisjoint(paths[other])
            else:
                stem = PurePath(archive.name).stem
                is_strange = stem != stems[holder] and stem in stems.values()
            if other != holder and is_strange:
                strange.add((holder, other))
    return strange


def _at_its_place(labelled, by_path, files, strange):
    """Returns the image at one of the paths of a `Labelled`; None if there is none."""
    for path in labelled.paths:
        found = _of_archives(by_path.get(path, ()), labelled, strange)
        own = [file for file in found if file.archive is labelled.file.archive]
        found = own or _of_split(found, labelled, files)
        if found:
            return _only(found, labelled, files)
    return None


def _below_folders(labelled, find_end, files):
    """Returns the image at its place below folders around everything."""
    for place in labelled.paths:
        # A name without folders would fit any folder.
        found = find_end(labelled, place) if "/" in place else ()
        found = [file for path, file in found if path != place]
        if found:
            return _only(found, labelled, files)
    return None


def _by_name(labelled, find_end, folders, files, by_name):
    """Returns the image whose path ends most like a name.

    It is added to the list `by_name` where only its own name is equal.
    """
    name = labelled.name
    for end in _ends(name):
        best = find_end(labelled, end)
        if best and "/" not in end and "/" in name:
            # A folder that other labels name is not another word for that of this one.
            best = [(path, file) for path, file in best if _folder(path) not in folders]
        if best:
            found = _only([file for _, file in best], labelled, files)
            if "/" not in end:
                by_name.append(found)
            return found
    return None


def _candidates(labelled, found, names, files, strange):
    """Returns those of some images that are not in the folders of others.

    Those are the folders of another split, and those with one of `names`, the folders
    of all labels, that these labels do not have: `cam2/images` is not `cam1/images`.
    """
    if not found:
        return []
    own = labelled.folders
    found = [
        (path, file)
        for path, file in found
        if all(part in own or part not in names for part in path.split("/")[:-1])
    ]
    allowed = _of_archives([file for _, file in found], labelled, strange)
    numbers = {file.number for file in _of_split(allowed, labelled, files)}
    return [(path, file) for path, file in found if file.number in numbers]


def _of_archives(found, labelled, strange):
    """Leaves out the files in archives for other labels; see `_strange_archives`."""
    holder = id(labelled.file.archive)
    return [file for file in found if (holder, id(file.archive)) not in strange]


def _of_split(found, labelled, files):
    """Leaves out the files in folders of another split than that of a label.

    So are those of an archive `train.zip` for labels of `val`, even if it is the only
    one: the other may have been forgotten.
    """
    label_split = labelled.split or files.split_of(labelled.file)
    if label_split is None:
        return found
    allowed, kept = (None, label_split), []
    for file in found:
        split = files.split_of(file)
        if split is None and file.archive is not labelled.file.archive:
            split = split_of_name(PurePath(file.archive.name).stem)
        if split in allowed:
            kept.append(file)
    return kept


def _only(found, labelled, files):
    """Returns the first of several equal files."""
    first = files.digest(found[0]) if len(found) > 1 else None
    if any(files.digest(file) != first for file in found[1:]):
        listed = ", ".join(file.where for file in found[:10])
        raise InputError(
            f"{labelled.where}: expected one image, got {len(found)} different ones "
            f"that fit: {listed}; remove those that are not meant."
        )
    return found[0]


def _check_claims(labelled, images):
    """Raises an `InputError` where labels of different images have found the same."""
    first_of = {}
    for index, file in images.items():
        each = labelled[index]
        first = first_of.setdefault(file.number, each)
        if first.place != each.place:
            raise InputError(
                f"{file.where} fits both {first.where} and {each.where}: expected one "
                "image for each; is an image missing, or are there two labels for one?"
            )


def _base(path):
    return path.rpartition("/")[2]


def _folder(path):
    """Returns the name of the innermost folder; empty if there is none."""
    return path.rpartition("/")[0].rpartition("/")[2]

"""Whether the names of folders and archives allow an image for a label.

`cam1/labels/1.txt` and `cam2/images/1.png` have different words. If other labels are
those of `cam2`, the image is theirs. If nothing else has that word, it may be another
name for the same folder.
"""

import re
from functools import cache
from pathlib import PurePath

from superbai.data_sets.files import archive_stem, split_of_name
from yolov3_tf2.names import normalise_path

# What a folder holds, not which images these are.
_KINDS = frozenset(
    ("image", "images", "img", "imgs", "jpegimages", "label", "labels")
    + ("annotation", "annotations", "ann", "anns", "json", "coco")
)


class FolderWords:
    """The words by which labels and images are told apart.

    Archives count as folders around what they hold, where labels and images are in
    different ones. An archive of other labels holds the images of these.
    """

    def __init__(self, labelled, files):
        """Collects the words of all labels.

        Args:
            labelled: list of `Labelled`.
            files: the `DataSetFiles` with their images.
        """
        self._files = files
        archives = {id(each.file.archive): each.file.archive for each in labelled}
        self._label_archives = set(archives)
        self._are_parts = _are_parts(list(archives.values()))
        self._split_of = cache(files.split_of)
        places = {_label_place(each): each for each in labelled}
        self._named = frozenset().union(
            *(_label_words(each) for each in places.values())
        )
        if len(archives) > 1 and not self._are_parts:
            self._named |= frozenset().union(
                *(_archive_words(archive.name) for archive in archives.values())
            )
        # `images/cam1.zip` for `labels/cam1.zip`: no other archive is for its labels.
        self._stems_apart = {
            archive_stem(file.archive.name)
            for file in files.images
            if id(file.archive) not in self._label_archives
        }
        self._image_folders = {(id(f.archive), f.folder) for f in files.images}
        self._hot = {}

    def group(self, file):
        """Returns what of the place of an image counts: a key for `allows`."""
        key = (id(file.archive), file.folder)
        if key not in self._hot:
            inside = folder_words(file.folder)
            outside = inside | _archive_words(file.archive.name)
            split = self._split_of(file)
            stem = archive_stem(file.archive.name)
            own = split or split_of_name(stem)
            self._hot[key] = (
                id(file.archive),
                inside & self._named,
                outside & self._named,
                split,
                own,
                stem,
            )
        return self._hot[key]

    def allows(self, labelled, group):
        """Returns whether a label may have an image of a group.

        Not of an archive with other labels, nor of a folder or archive that other
        labels name, nor of another split: even if it is the only one, as the other may
        have been forgotten.
        """
        archive, inside, outside, split, split_apart, stem = group
        own = id(labelled.file.archive)
        label_split = labelled.split or self._split_of(labelled.file)
        if archive == own or (self._are_parts and archive in self._label_archives):
            return _fits(split, label_split) and inside <= _label_words(labelled)
        own_stem = archive_stem(labelled.file.archive.name)
        if archive in self._label_archives or (
            own_stem in self._stems_apart and stem != own_stem
        ):
            return False
        words = _label_words(labelled)
        if len(self._label_archives) > 1:
            words = words | _archive_words(labelled.file.archive.name)
        if label_split is None:
            label_split = split_of_name(own_stem)
        return _fits(split_apart, label_split) and outside <= words

    def is_doubtful(self, labelled, file):
        """Returns whether another archive than expected has the image of a label.

        Others of its folder are in the archive of the label; or there are several
        archives of labels, and nothing says that this one is about the image.
        """
        archive = labelled.file.archive
        if file.archive is archive:
            return False
        folders = {path[: path.rfind("/") + 1] for path in labelled.paths}
        if any((id(archive), folder) in self._image_folders for folder in folders):
            return True
        words = folder_words(file.folder) | _archive_words(file.archive.name)
        is_one = len(self._label_archives) == 1
        return not is_one and words.isdisjoint(_archive_words(archive.name))

    def is_certain(self, labelled, file):
        """Returns whether all folders that a label names are those of an image too."""
        name_folder = labelled.name[: labelled.name.rfind("/") + 1]
        words = folder_words(labelled.file.folder) | folder_words(name_folder)
        return words <= folder_words(file.folder) | _archive_words(file.archive.name)


def _are_parts(archives):
    """Returns whether archives are the parts of one folder, as cloud drives zip them.

    `set-001.zip` and `set-002.zip`: all is in one and the same folder, and no file is
    in both.
    """
    names = {re.sub(r"[0-9]+$", "", archive_stem(each.name)) for each in archives}
    if len(archives) < 2 or len(names) > 1:
        return False
    paths = [path for each in archives for path in map(normalise_path, each.files)]
    tops = {path.partition("/")[0].lower() for path in paths}
    is_whole = len(tops) == 1 and all("/" in path for path in paths)
    return is_whole and not tops & _KINDS and len(set(paths)) == len(paths)


def _fits(image_split, label_split):
    return label_split is None or image_split in (None, label_split)


def _label_place(labelled):
    name_folder = labelled.name.rpartition("/")[0]
    own = labelled.source if labelled.file.ending == ".json" else ""
    return (id(labelled.file.archive), labelled.file.folder, own, name_folder)


def _label_words(labelled):
    """Returns the words of the folders of a label, of its name, and of a JSON's own."""
    words = folder_words(labelled.file.folder) | folder_words(
        labelled.name.rpartition("/")[0]
    )
    if labelled.file.ending == ".json":
        words |= folder_words(labelled.source)
    return words


@cache
def _archive_words(name):
    return folder_words(archive_stem(name))


@cache
def folder_words(path):
    """Returns the words of the folders of a path, whole and in parts, a frozenset.

    Example:
        >>> sorted(folder_words("images/cam1_day"))
        ['cam1', 'cam1_day', 'day']
    """
    folders = [part.lower() for part in PurePath(path).parts if ":" not in part]
    parts = [part for folder in folders for part in re.split(r"[\W_]+", folder)]
    return frozenset((*folders, *parts)) - _KINDS - {"", "/", ".", ".."}


def endings_of(path):
    """Returns a path, and what is left of it without one folder more each time.

    Example:
        >>> endings_of("a/b/1.png")
        ['a/b/1.png', 'b/1.png', '1.png']
    """
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]

"""Which images of a YOLO data set are for training, validation and testing.

A YAML or darknet's `.data` names a folder or a text file with a list of images for each
split. The paths are those of the machine that wrote them, or are relative to a folder
that only its author knows: their last parts count.
"""

from collections import defaultdict

from superbai.data_sets.files import ending, split_of_name, without_ending
from superbai.data_sets.folder_words import endings_of, folder_words
from superbai.splits import join_splits
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import yolo_config
from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.names import normalise_path

_START_BYTES = 4096


def is_image_list(file, images):
    """Returns whether a file is a list of images by its name and its start.

    Args:
        file: a `File`.
        images: container of the names of images, without folders and extensions.
    """
    if file.ending != ".txt" or not split_of_name(without_ending(file.base)):
        return False
    # The last line may be cut.
    start = yolo_config.decode_start(file.read_start(_START_BYTES))
    lines = _lines(start[: start.rfind("\n") + 1] or start)
    return any(
        is_image_name(line) or normalise_path(line).rpartition("/")[2] in images
        for line in lines
    )


def stems(files):
    """Returns the names of all images, without folders and extensions, a set."""
    return {without_ending(image.base) for image in files.images}


def _lines(text):
    """Returns the lines of a list that are neither blank nor a comment."""
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_splits(description, files, notes):
    """Reads which images belong to which split.

    Args:
        description: a `yolo_description.Description`.
        files: a `DataSetFiles`.
        notes: `Notes` to add to.

    Returns:
        A dict from the number of an image to the set of its splits, None if nothing
        names them; and a tuple of the listed images that are not there.

    Raises:
        InputError: nothing is where the images for training should be, but those of
            another split are; or two splits share some of their images.
    """
    images = stems(files)
    sources = description.sources or [
        (file, split_of_name(without_ending(file.base)), file.path)
        for file in files.others
        if is_image_list(file, images)
    ]
    places = _Places(files, sources)
    split_of, missing, lost = defaultdict(set), [], []
    for file, split, value in sources:
        images, absent = places.find(file, value)
        missing += absent
        if not images and not absent:
            lost.append((file, split, value))
        for image in images:
            split_of[image.number].add(split)
    if not split_of:
        return None, tuple(missing)
    for file, split, value in lost:
        if split == "train":
            raise InputError(
                f"{file.where}: expected images for training in '{value}', got none "
                "there; is the path right, and is the archive whole?"
            )
        notes.leave_out("splits that are named without any images", split)
    paths = {image.number: image.path for image in files.images}
    where = sources[0][0].where
    return join_splits(split_of, where, paths.get, notes), tuple(missing)


class _Places:
    """Finds the images of a folder or of a list by the end of its path."""

    def __init__(self, files, sources):
        self._in_folder, self._by_ending = defaultdict(list), None
        self._files, self._named = files, frozenset()
        lists = [file for file in files.others if file.ending == ".txt"]
        self._lists = {file.path: file for file in lists}
        for image in files.images:
            parts = image.path.split("/")[:-1]
            for number in range(1, len(parts) + 1):
                self._in_folder["/".join(parts[:number])].append(image)
        self._found_lists = {
            (file, value): self._find_list(file, value) for file, _, value in sources
        }

    def find(self, file, value):
        """Returns the images of a split, and the names of those that are missing.

        Args:
            file: the file that names the split.
            value: the path of a folder or of a list that it gives.
        """
        if ending(value) == ".txt":
            found = self._found_lists[file, value]
            return self._read_list(*found) if found else ([], [])
        found = _find_ending(_clean(value).split("/"), file.folder, self._in_folder)
        return (self._in_folder[found] if found else []), []

    def _find_list(self, file, value):
        """Returns the file of a list and its lines, whose folders count as named."""
        if ending(value) != ".txt":
            return None
        found = _find_ending(_clean(value).split("/"), file.folder, self._lists)
        if not found:
            return None
        found = self._lists[found]
        content = found.read(yolo_config.MAX_LIST_BYTES)
        lines = _lines(yolo_config.decode_text(content, found.where))
        paths = [_clean(line) for line in lines]
        folders = {path.rpartition("/")[0] for path in paths}
        self._named = self._named.union(*map(folder_words, folders))
        return found, paths

    def _read_list(self, file, paths):
        images, missing = [], []
        for path in paths:
            found = self._find_image(file, path)
            if found:
                images.append(found)
            else:
                missing.append(path)
        return images, missing

    def _find_image(self, file, path):
        """Returns the image of a line, with as many of its folders as there are.

        As elsewhere, none in a folder that other lines name, or of another split.
        """
        if self._by_ending is None:
            self._by_ending = defaultdict(list)
            for image in self._files.images:
                for name in {image.path, without_ending(image.path)}:
                    for each in endings_of(name):
                        self._by_ending[each].append(image)
        words = folder_words(path.rpartition("/")[0])
        others, split = self._named - words, _split_of(path)
        for each in endings_of(path):
            found = self._by_ending.get(each, ())
            # Of equal paths, that in the archive of the list.
            own = sorted(found, key=lambda image: image.archive is file.archive)
            paths = {image.path: image for image in own}
            nearest = paths.get(file.folder + each) or paths.get(each)
            if nearest is None and len(paths) == 1:
                (nearest,) = paths.values()
            if nearest is None:
                continue
            is_others = not others.isdisjoint(folder_words(nearest.folder))
            is_of_split = _split_of(nearest.path) in (None, split)
            if each == path or (is_of_split and not is_others):
                return nearest
        return None


def _find_ending(parts, folder, known, by_end=None):
    """Returns the known path that ends in the most parts of another; None if none does.

    Args:
        parts: those of the path. A part that is the name of a split is not left out:
            `images` alone is not `valid/images`.
        folder: that of the file that has the path; paths below it come first.
        known: dict or set of paths.
        by_end: dict from the ends of these to the only path with it; None to search.
    """
    last = len(parts) - 1
    named = [i for i, part in enumerate(parts[:last]) if split_of_name(part)]
    for start in range((named[-1] if named else last) + 1):
        path = "/".join(parts[start:])
        if folder + path in known:
            return folder + path
        if path in known:
            return path
        if by_end is None:
            found = [each for each in known if each.endswith(f"/{path}")]
        else:
            found = [by_end[path]] if by_end.get(path) else []
        if len(found) == 1:
            return found[0]
    return None


def _clean(path):
    """Returns a path without parts that lead out of a folder."""
    parts = normalise_path(path).split("/")
    return "/".join(p for p in parts if p not in (".", "..") and ":" not in p)


def _split_of(path):
    """Returns the split that the innermost folder of a path names, if any does."""
    folders = reversed(path.split("/")[:-1])
    return next(filter(None, map(split_of_name, folders)), None)

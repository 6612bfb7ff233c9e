"""Which images of a YOLO data set are for training, validation and testing.

A YAML or darknet's `.data` names a folder or a text file with a list of images for each
split. The paths are those of the machine that wrote them, or are relative to a folder
that only its author knows: their last parts count.
"""

from collections import defaultdict
from functools import cached_property

from superbai.data_sets.files import ending, split_of_name, without_ending
from superbai.splits import join_splits
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import yolo_config
from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.names import normalise_path


def is_image_list(file):
    """Returns whether a file is a list of images by its first line."""
    if file.ending != ".txt" or not split_of_name(without_ending(file.base)):
        return False
    lines = _read_lines(file.read(yolo_config.MAX_LIST_BYTES), file.where)
    return bool(lines) and is_image_name(lines[0])


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
    sources = description.sources or [
        (file, split_of_name(without_ending(file.base)), file.path)
        for file in files.others
        if is_image_list(file)
    ]
    places = _Places(files)
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


def _read_lines(content, where):
    """Returns the lines of a list, without empty ones and comments."""
    lines = map(str.strip, yolo_config.decode_text(content, where).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class _Places:
    """Finds the images of a folder or of a list by the end of its path."""

    def __init__(self, files):
        self._in_folder, self._images = defaultdict(list), {}
        self._lists = [file for file in files.others if file.ending == ".txt"]
        for image in files.images:
            self._images[image.path] = image
            parts = image.path.split("/")[:-1]
            for number in range(1, len(parts) + 1):
                self._in_folder["/".join(parts[:number])].append(image)

    def find(self, file, value):
        """Returns the images of a split, and the names of those that are missing.

        Args:
            file: the file that names the split.
            value: the path of a folder or of a list that it gives.
        """
        parts = _clean(value).split("/")
        if ending(value) == ".txt":
            paths = {each.path: each for each in self._lists}
            found = _find_ending(parts, file.folder, paths)
            return self._read_list(paths[found]) if found else ([], [])
        found = _find_ending(parts, file.folder, self._in_folder)
        return (self._in_folder[found] if found else []), []

    def _read_list(self, file):
        images, missing = [], []
        lines = _read_lines(file.read(yolo_config.MAX_LIST_BYTES), file.where)
        paths = list(map(_clean, lines))
        folders = {_folder(path) for path in paths}
        for path in paths:
            found = _find_ending(
                path.split("/"), file.folder, self._images, self._images_by_end
            )
            # A folder that other lines name is not another word for that of this one.
            is_other = found and _folder(found) in folders - {"", _folder(path)}
            if found and not is_other:
                images.append(self._images[found])
            else:
                missing.append(path)
        return images, missing

    @cached_property
    def _images_by_end(self):
        """Dict from the last parts of paths to the only such path; None if several."""
        by_end = {}
        for path in self._images:
            start = path.find("/")
            while start >= 0:
                end = path[start + 1 :]
                by_end[end] = None if end in by_end else path
                start = path.find("/", start + 1)
        return by_end


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


def _folder(path):
    """Returns the name of the innermost folder; empty if there is none."""
    return path.rpartition("/")[0].rpartition("/")[2]

"""Takes the one image of several files that fit a label, or says that nobody can."""

import hashlib

from superbai.data_sets.files import archive_stem, without_ending
from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_slashes


class OnlyImage:
    """Takes the one of several images that fit, if all are equal; reads each once."""

    def __init__(self, words):
        self._words, self._digests = words, {}

    def __call__(self, labelled, lists):
        """Returns the first image of lists of those that fit a label.

        Raises:
            InputError: they are not equal.
        """
        files = lists[0] if len(lists) == 1 else [f for each in lists for f in each]
        if len(files) > 1:
            files = _nearest(labelled, files)
            if not self._are_equal(files):
                certain = [f for f in files if self._words.is_certain(labelled, f)]
                files = certain or files
            if not self._are_equal(files):
                different = list({self._digest(f): f for f in files}.values())
                listed = ", ".join(file.where for file in different[:10])
                raise InputError(
                    f"{labelled.where}: expected one image, got {len(different)} "
                    f"different ones that fit: {listed}; remove those that are not "
                    "meant."
                )
        return files[0]

    def _are_equal(self, files):
        if len(files) == 1:
            return True
        first = self._digest(files[0])
        return all(self._digest(file) == first for file in files)

    def _digest(self, file):
        if file.number not in self._digests:
            self._digests[file.number] = hashlib.sha256(file.read()).digest()
        return self._digests[file.number]


def _nearest(labelled, files):
    """Returns the files in the archive of a label, else in one of the same name.

    Of these, the ones whose names are in the same Unicode form as that of the label.
    """
    archive = labelled.file.archive
    own = [file for file in files if file.archive is archive]
    stem = archive_stem(archive.name)
    same = own or [f for f in files if archive_stem(f.archive.name) == stem]
    raw = raw_stem(labelled.raw_name or labelled.file.name)
    return [f for f in same or files if raw_stem(f.name) == raw] or same or files


def raw_stem(name):
    """Returns the name of a file without folders and extension, in its Unicode form."""
    return without_ending(normalise_slashes(name).rpartition("/")[2])

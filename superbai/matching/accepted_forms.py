"""The forms that archives are known to have, and what they say about other files."""

from collections import Counter
from functools import cached_property

from superbai.matching.archive_forms import ARCHIVE, FOLDER, NOWHERE
from superbai.matching.label_names import without_extension
from yolov3_tf2.files.image_kinds import is_image_name

# Without the name of a dataset, a further form needs labels for this share of its
# images, or of what the first form has: a folder `backup` with a few equal names is
# none.
_MIN_SHARE = 0.5


class AcceptedForms:
    """The forms in which images were found."""

    def __init__(self, labels, readings):
        self._labels, self._readings = labels, readings
        # Dict from (folders, has_extension) to the archives that have such images.
        self._unnamed = {}
        # Dict from (folders, kind, has_extension) to the set of `Form.below`.
        self._named = {}
        self._min_share = 0.0

    def add(self, number, files):
        """Adds a form.

        Args:
            number: of the form.
            files: those that were found in this form.
        """
        form, files = self._readings.forms[number], list(files)
        if not self._unnamed and not self._named:
            share = len(files) / max(1, self._num_images(form, files))
            self._min_share = _MIN_SHARE * min(1, share)
        if form.dataset == NOWHERE:
            place = (form.folders, form.has_extension)
            archives = {id(self._readings.entries[file].archive) for file in files}
            self._unnamed.setdefault(place, set()).update(archives)
        else:
            place = (form.folders, form.dataset, form.has_extension)
            self._named.setdefault(place, set()).add(form.below)

    def may_follow(self, number, files):
        """Tells whether a form may hold the images of labels that are left.

        Args:
            number: of the form.
            files: list of a file for each of these labels that it has one for.
        """
        form = self._readings.forms[number]
        if form.dataset != NOWHERE or not self._min_share:
            return True
        return len(files) >= self._min_share * self._num_images(form, files)

    def read_as_another(self, pair):
        """Tells whether the file of a pair is another image by one of the forms.

        That image may have no label.
        """
        if not self._unnamed and not self._named:
            return False
        readings = self._readings
        entry = readings.entries[readings.files[pair]]
        form = readings.forms[readings.form_numbers[pair]]
        labels = self._labels.members(readings.targets[pair])
        for has_extension in (False, True):
            path = without_extension(entry.path) if has_extension else entry.path
            for target, is_evident in self._read_path(path, has_extension, entry):
                if target is not None:
                    if labels.isdisjoint(self._labels.members(target)):
                        return True
                # A folder may be that of a dataset that has no labels at all, or a
                # folder around the datasets of another archive.
                elif is_evident or form.dataset == NOWHERE or form.below:
                    return True
        return False

    def _read_path(self, path, has_extension, entry):
        """Yields what a path is by each form.

        Yields:
            A target, or None if there is no such label; and whether it is an image
            of a known dataset, or of an archive with other images in this form.
        """
        labels, parts = self._labels, path.split("/")
        for start in range(len(parts)):
            folders, key = "/".join(parts[1:start]), "/".join(parts[max(1, start) :])
            archives = self._unnamed.get((folders, has_extension), ()) if start else ()
            if archives and self._may_be_key(key):
                target = labels.find_key(key, entry.name)
                if target is not None or id(entry.archive) in archives:
                    yield target, True
            kind = FOLDER if start else ARCHIVE
            for below in self._named.get((folders, kind, has_extension), ()):
                for dataset, key in self._split(parts[start:], below):
                    target = labels.find(dataset, key, entry.name)
                    yield target, dataset in labels.datasets

    def _split(self, parts, below):
        """Yields each name of a dataset at the start of a path, and the key."""
        for length in self._readings.dataset_lengths | {1}:
            dataset = "/".join(parts[:length])
            rest = f"{'/'.join(parts[length:])}"
            key = rest.removeprefix(f"{below}/") if below else rest
            if below and key == rest:
                continue
            is_name = length == 1 or dataset in self._labels.datasets
            if is_name and self._may_be_key(key):
                yield dataset, key

    def _may_be_key(self, key):
        """Tells whether a key has as many extensions as some key of a label."""
        return bool(key) and _num_extensions(key) in self._extensions

    @cached_property
    def _extensions(self):
        return {_num_extensions(key) for _, key in self._labels.identities}

    @cached_property
    def _images_below(self):
        """Counter of the images below each folder of each archive."""
        counts = Counter()
        for entry in self._readings.entries:
            *folders, name = entry.path.split("/")[1:]
            if "." in name and not is_image_name(name):
                continue
            for end in range(len(folders) + 1):
                counts[id(entry.archive), "/".join(folders[:end])] += 1
        return counts

    def _num_images(self, form, files):
        """Returns how many images the archives of these files have in a form."""
        archives = {id(self._readings.entries[file].archive) for file in files}
        return sum(self._images_below[each, form.folders] for each in archives)


def _num_extensions(key):
    """Returns how many extensions of images a key ends in; 2 for more."""
    first = without_extension(key)
    return bool(first) + bool(first and without_extension(first))

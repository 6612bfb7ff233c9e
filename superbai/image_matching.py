"""Finds the image file of each label of an export.

A label has a dataset and a data key; an image is a file in one of the archives. Which
of the possible forms the archives have is decided from all labels and all files
together, see `archive_forms.py`:

1. The form counts in which most labels have a file. A folder or an archive that is
   named like a dataset holds no images of others.
2. Where another form fits as well and contradicts it, both are named and refused.
3. Other forms may hold the images of the labels that are left, of the files that no
   form before says to be other images.
"""

import heapq
from typing import NamedTuple

from superbai.accepted_forms import AcceptedForms
from superbai.archive_forms import NOWHERE, Entry, Labels, Readings, without_extension
from superbai.contents import Contents
from yolov3_tf2.errors import InputError

# How much more often a form must fit than one that contradicts it and has images that
# the first has not.
_CERTAIN = 10


class Elsewhere(NamedTuple):
    """A file that may be the image of a label, and is not taken for it.

    Attributes:
        entry: the `Entry`.
        dataset: the other dataset that its folder or its archive is named like; empty
            if only the file name is that of the label.
    """

    entry: Entry
    dataset: str


class Match(NamedTuple):
    """Which image belongs to which label.

    Attributes:
        entries: dict from (dataset, data_key) to `Entry`, of the labels with an image.
        by_name: set of those that were found by their file name alone.
        rest: list of the entries that belong to no label.
        elsewhere: dict from (dataset, data_key) to `Elsewhere`, of needed labels
            without an image.
        project_folder: name of the folder or the archive that is named like a dataset
            and holds the images of all; empty if there is none.
    """

    entries: dict[tuple[str, str], Entry]
    by_name: set[tuple[str, str]]
    rest: list[Entry]
    elsewhere: dict[tuple[str, str], Elsewhere]
    project_folder: str


class _Fit(NamedTuple):
    """The labels that a form has files for.

    Attributes:
        form: number of the form.
        files: dict from each label to the list of its files.
        chosen: dict from each label to one of its files; without those that have
            several different images.
    """

    form: int
    files: dict[int, list[int]]
    chosen: dict[int, int]


def match_images(identities, archives, needed, *, find_by="path", exact=None):
    """Finds the image of each (dataset, data_key); the module describes the rules.

    All labels of an export take part, also those that are not converted: their images
    do not belong to other labels.

    Args:
        identities: list of (dataset, data_key), each once, in NFC unless two differ in
            their Unicode form alone.
        archives: list of open archives.
        needed: the identities that are converted; others may be ambiguous.
        find_by: `path`; `key`, names of folders and archives are not those of datasets;
            or `file_name`, like `path`, and then by the file name alone, where exactly
            one label and one file have it.
        exact: dict from identities to their names in the export, where these are in
            another Unicode form.

    Returns:
        A `Match`.

    Raises:
        InputError: different images fit a needed label equally well, or one image fits
            several labels.
    """
    labels = Labels(identities, exact or {}, names_count=find_by != "key")
    matcher = _Matcher(labels, Readings(labels, archives), needed)
    matcher.match_forms()
    matcher.share_copies()
    project_folder = matcher.match_project_folder()
    by_name = matcher.match_names() if find_by == "file_name" else ()
    entries, found = matcher.entries, sorted(matcher.file_of.items())
    used = set(matcher.file_of.values())
    return Match(
        {identities[label]: entries[file] for label, file in found},
        {identities[label] for label in by_name},
        [entry for entry in entries if entry.number not in used],
        {identities[label]: place for label, place in matcher.find_elsewhere()},
        project_folder,
    )


class _Matcher:
    """Decides which form the archives have, and which file is whose image.

    Attributes:
        entries: list of all `Entry`; a file is the index of one.
        file_of: dict from labels to files.
    """

    def __init__(self, labels, readings, needed):
        self._labels, self._readings = labels, readings
        self._needed = bytearray(identity in needed for identity in labels.identities)
        self.entries, self.file_of = readings.entries, {}
        self._contents = Contents(self.entries)
        self._accepted = AcceptedForms(labels, readings)
        # What is decided; also where it is not known which of two is right.
        self._closed = bytearray(len(labels.identities))
        self._taken = bytearray(len(self.entries))

    def match_forms(self):
        """Gives the labels their files, form by form."""
        readings, waiting = self._readings, []
        for number, form in enumerate(readings.forms):
            most = sum(map(readings.allowed.__getitem__, readings.of_form[number]))
            heapq.heappush(waiting, (-most, form.dataset == NOWHERE, number))
        while waiting:
            most, is_unnamed, number = heapq.heappop(waiting)
            fit = self._fit(number)
            if not fit.files or not self._accepted.may_follow(number, len(fit.files)):
                continue
            if len(fit.chosen) < -most:  # It was more before other forms had files.
                heapq.heappush(waiting, (-len(fit.chosen), is_unnamed, number))
                continue
            self._refuse_contradictions(fit)
            self._accept(fit)

    def _fit(self, form):
        readings, files = self._readings, {}
        for pair in readings.of_form[form]:
            target, file = readings.targets[pair], readings.files[pair]
            if self._is_possible(pair) and not self._labels.is_group(target):
                files.setdefault(target, []).append(file)
        chosen = {}
        for label, found in files.items():
            if len(found) > 1:
                found = self._exact_files(label, found)
            if len(found) == 1 or not self._contents.differ(found):
                chosen[label] = found[0]
        return _Fit(form, files, chosen)

    def _exact_files(self, label, files):
        """Returns the files whose names fit byte for byte; all of them if none does."""
        return [
            file
            for file in files
            if self._labels.has_exact_name(label, self.entries[file].name)
        ] or files

    def _is_open(self, pair):
        """Tells whether the file of a pair and one of its labels have no other yet."""
        target = self._readings.targets[pair]
        return not self._taken[self._readings.files[pair]] and (
            not self._closed[target]
            if not self._labels.is_group(target)
            else not all(map(self._closed.__getitem__, self._labels.members(target)))
        )

    def _is_possible(self, pair):
        return (
            self._readings.allowed[pair]
            and self._is_open(pair)
            and not self._accepted.read_as_another(pair)
        )

    def _refuse_contradictions(self, fit):
        """Compares a form with all that contradict it.

        What is contradicted and not needed becomes nobody's.

        Raises:
            InputError: one of them may be right, too.
        """
        readings = self._readings
        label_of = {file: label for label, files in fit.files.items() for file in files}
        other_labels, other_files = {}, {}
        for file, label in label_of.items():
            for pair in readings.of_file(file):
                form = readings.form_numbers[pair]
                if (
                    form != fit.form
                    and label not in self._labels.members(readings.targets[pair])
                    and self._is_open(pair)
                ):
                    other_labels.setdefault(form, []).append((file, label, pair))
        for label in fit.files:
            for pair in readings.of_label(label):
                form = readings.form_numbers[pair]
                if (
                    form != fit.form
                    and readings.files[pair] not in label_of
                    and self._is_possible(pair)
                ):
                    other_files.setdefault(form, []).append((label, pair))
        for form, found in other_labels.items():
            if self._is_as_good(form, fit):
                self._refuse_labels(fit, found)
        for form, found in other_files.items():
            if self._has_as_good_files(form, fit):
                self._refuse_files(fit, found)

    def _is_as_good(self, form, fit):
        """Tells whether a form may be right that reads files as other labels.

        If all images are labelled, the true form has a label for every file: none has
        more.
        """
        readings, files, labels, has_more = self._readings, set(), set(), False
        for pair in filter(self._is_open, readings.of_form[form]):
            files.add(readings.files[pair])
            if readings.targets[pair] not in labels:
                labels |= self._labels.members(readings.targets[pair])
                labels.add(readings.targets[pair])
        labels = {label for label in labels if not self._labels.is_group(label)}
        has_more = any(n not in fit.files and not self._closed[n] for n in labels)
        strength = min(len(files), len(labels))
        return strength * (_CERTAIN if has_more else 1) >= len(fit.chosen)

    def _has_as_good_files(self, form, fit):
        """Tells whether a form may be right that has other files for some labels."""
        forms = self._readings.forms
        is_named = forms[form].dataset != NOWHERE
        if not is_named and forms[fit.form].dataset != NOWHERE:
            return False
        other = self._fit(form)
        if not self._accepted.may_follow(form, len(other.files)):
            return False
        has_more = any(label not in fit.files for label in other.files)
        # A path with the name of the dataset is passed over for better reasons only.
        has_more |= is_named and forms[fit.form].dataset == NOWHERE
        return len(other.files) * (_CERTAIN if has_more else 1) >= len(fit.chosen)

    def _refuse_labels(self, fit, found):
        readings = self._readings
        for file, label, pair in found:
            for other in self._labels.members(readings.targets[pair]):
                if (self._needed[label] or self._needed[other]) and not self._closed[
                    other
                ]:
                    raise self._claimed_twice(file, label, other, fit.form, pair)
        for file, label, pair in found:
            self._closed[label] = self._taken[file] = True
            for other in readings.of_label(label):
                if readings.form_numbers[other] == readings.form_numbers[pair]:
                    self._taken[readings.files[other]] = True

    def _refuse_files(self, fit, found):
        for label, pair in sorted(found, key=lambda each: not self._needed[each[0]]):
            files = [*fit.files[label], self._readings.files[pair]]
            if self._contents.differ(files):
                if self._needed[label]:
                    raise self._ambiguous(label, files)
                self._withdraw(label, files)

    def _withdraw(self, label, files):
        self._closed[label] = True
        for file in files:
            self._taken[file] = True

    def _accept(self, fit):
        for label, files in fit.files.items():
            if self._closed[label]:
                continue
            if label not in fit.chosen:
                if self._needed[label]:
                    raise self._ambiguous(label, files)
                self._withdraw(label, files)
            elif not self._taken[fit.chosen[label]]:
                self._assign(label, fit.chosen[label])
        self._accepted.add(fit.form, fit.chosen.values())

    def _assign(self, label, file):
        self.file_of[label] = file
        self._closed[label] = self._taken[file] = True

    def share_copies(self):
        """Gives copies of one image to the labels between which no name decides.

        Raises:
            InputError: there are fewer files than such labels, or they differ.
        """
        readings, by_group = self._readings, {}
        for form, pairs in enumerate(readings.of_form):
            groups = [pair for pair in pairs if self._is_group_to_share(pair)]
            if groups and self._accepted.may_follow(form, len(groups)):
                for pair in groups:
                    files = by_group.setdefault(readings.targets[pair], {})
                    files[readings.files[pair]] = pair
        for group, pairs in by_group.items():
            labels = sorted(self._labels.members(group))
            waiting = [label for label in labels if not self._closed[label]]
            files = sorted(file for file in pairs if not self._taken[file])
            if len(files) >= len(waiting) and not self._contents.differ(files):
                for label, file in zip(waiting, files, strict=False):
                    self._assign(label, file)
            elif files and any(self._needed[label] for label in waiting):
                label = next(label for label in waiting if self._needed[label])
                other = next(each for each in labels if each != label)
                first, second = sorted((label, other))
                form = readings.form_numbers[pairs[files[0]]]
                raise self._claimed_twice(files[0], first, second, form, None)

    def _is_group_to_share(self, pair):
        is_group = self._labels.is_group(self._readings.targets[pair])
        return is_group and self._is_possible(pair)

    def match_project_folder(self):
        """Gives the files of a folder that is named like a dataset to all datasets.

        Returns:
            The name of the folder or archive; empty if it has not the images of all.
        """
        open_labels = [n for n, closed in enumerate(self._closed) if not closed]
        readings = self._readings
        for form, pairs in enumerate(readings.of_form):
            if not open_labels or readings.forms[form].dataset != NOWHERE:
                continue
            files = {readings.targets[pair]: readings.files[pair] for pair in pairs}
            if (
                len(files) == len(pairs) == len(self._closed)
                and not any(map(self._labels.is_group, files))
                and self.file_of.items() <= files.items()
                and (name := self._project_folder(files.values(), open_labels))
            ):
                for label in open_labels:
                    self._assign(label, files[label])
                return name
        return ""

    def _project_folder(self, files, labels):
        """Returns the one dataset that folders are named like; empty if not the project.

        Args:
            files: those of the folder.
            labels: the labels that have a file there only.
        """
        names = set()
        for folders in {entry.path.rpartition("/")[0] for entry in self.entries}:
            names |= self._readings.names_in(folders)
        if len(names) != 1:
            return ""
        (name,) = names
        first_folders = {
            key.partition("/")[0]
            for dataset, key in self._labels.identities
            if dataset == name
        }
        keys = [self._labels.identities[label][1] for label in labels]
        is_other = all(
            "/" in key and key.partition("/")[0] not in first_folders for key in keys
        )
        return name if is_other else ""

    def match_names(self):
        """Gives labels the files whose names alone are theirs; returns these labels."""
        found = {
            label: file
            for label, file in self._only_files().items()
            if not self._other_dataset(label, file)
        }
        for label, file in found.items():
            self._assign(label, file)
        return found

    def find_elsewhere(self):
        """Yields needed labels without a file, and an `Elsewhere` for each."""
        only_files = None
        for label, closed in enumerate(self._closed):
            if closed or not self._needed[label]:
                continue
            files = {
                self._readings.files[pair]
                for pair in self._readings.of_label(label)
                if self._is_open(pair)
            }
            if only_files is None:
                only_files = self._only_files()
            file = only_files.get(label)
            if len(files) == 1:
                (file,) = files
            if file is not None:
                other = self._other_dataset(label, file)
                if other or label in only_files:
                    yield label, Elsewhere(self.entries[file], other)

    def _other_dataset(self, label, file):
        """Returns another dataset that a folder of a file is named like; else empty."""
        folders = self.entries[file].path.rpartition("/")[0]
        names = self._readings.names_in(folders) - {self._labels.identities[label][0]}
        return min(names, default="")

    def _only_files(self):
        """Returns a dict from open labels to the only file with their name."""
        names = [key.rpartition("/")[2] for _, key in self._labels.identities]
        label_of = {}
        for label, name in enumerate(names):
            label_of[name] = None if name in label_of else label
        files, labels = {}, {}
        for entry in self.entries:
            if self._taken[entry.number]:
                continue
            name = entry.path.rpartition("/")[2]
            for each in {name, without_extension(name)}:
                label = label_of.get(each)
                if label is not None and not self._closed[label]:
                    files.setdefault(label, []).append(entry.number)
                    labels.setdefault(entry.number, []).append(label)
        return {
            label: found[0]
            for label, found in files.items()
            if len(found) == len(labels[found[0]]) == 1
        }

    def _ambiguous(self, label, files):
        dataset, key = self._labels.identities[label]
        entries = [self.entries[file] for file in files]
        listed = ", ".join(f"{entry.archive.name}: {entry.name}" for entry in entries)
        return InputError(
            f"'{key}' of dataset '{dataset}' matches {len(entries)} different images: "
            f"{listed}; give only the right one, or rename its folder to the name of "
            "the dataset."
        )

    def _claimed_twice(self, file, label, other, form, other_pair):
        entry, forms = self.entries[file], self._readings.forms
        names = ["/".join(filter(None, self._labels.identities[n])) for n in (label, other)]
        if other_pair is not None:
            for place, number in enumerate(
                (form, self._readings.form_numbers[other_pair])
            ):
                names[place] += f" (as {forms[number]})"
        return InputError(
            f"{entry.archive.name}: {entry.name} is the image of both {names[0]} and "
            f"{names[1]}; expected one for each. Are images missing? Those of each "
            "dataset may lie in a folder of its name."
        )

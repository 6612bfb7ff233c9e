"""Decides which forms archives have; `image_matching.py` describes the rules."""

import heapq
from typing import NamedTuple

from superbai.matching.accepted_forms import AcceptedForms
from superbai.matching.archive_forms import FOLDER, NOWHERE, Form

# How much more often a form must fit than one that contradicts it, if that one has
# images of other labels too.
_CERTAIN = 10


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


class FormChoice:
    """Gives labels their files, form by form."""

    def __init__(self, assignment):
        """Chooses no form yet.

        Args:
            assignment: an `Assignment`, which is completed.
        """
        self._assignment = assignment
        self._labels, self._readings = assignment.labels, assignment.readings
        self._accepted = AcceptedForms(self._labels, self._readings)

    def match_forms(self):
        """Accepts forms, the one with most labels first.

        Raises:
            InputError: another form may be right, or a form has several images for a
                label.
        """
        readings, waiting = self._readings, []
        for number, form in enumerate(readings.forms):
            most = sum(map(readings.allowed.__getitem__, readings.of_form[number]))
            # Of equal forms, first those with the dataset, and the simplest.
            rank = (form.dataset == NOWHERE, form.below != "", form.folders.count("/"))
            heapq.heappush(waiting, (-most, rank, number))
        while waiting:
            most, rank, number = heapq.heappop(waiting)
            fit = self._fit(number)
            if not fit.files or not self._may_follow(fit):
                continue
            if self._is_unknown_dataset(fit):
                continue
            if len(fit.chosen) < -most:  # Other forms have taken some since.
                heapq.heappush(waiting, (-len(fit.chosen), rank, number))
                continue
            self._compare_labels(fit)
            self._compare_files(fit)
            self._accept(fit)

    def share_copies(self):
        """Gives copies of one image to the labels between which no name decides.

        Raises:
            InputError: there are fewer files than such labels, or they differ.
        """
        assignment, readings = self._assignment, self._readings
        for group, forms in self._open_groups().items():
            labels = sorted(self._labels.members(group))
            waiting = [label for label in labels if not assignment.closed[label]]
            files = sorted(file for file in forms if not assignment.taken[file])
            if len(files) >= len(waiting) and not assignment.differ(files):
                for label, file in zip(waiting, files, strict=False):
                    assignment.assign(label, file)
            elif files and any(map(assignment.needed.__getitem__, waiting)):
                label = next(n for n in waiting if assignment.needed[n])
                other = next(n for n in labels if n != label)
                raise assignment.several_labels(
                    files[0], sorted((label, other)), [readings.forms[forms[files[0]]]]
                )

    def find_unused(self):
        """Returns a list of the files that fit labels which have another file."""
        readings, assignment, found = self._readings, self._assignment, []
        for file, taken in enumerate(assignment.taken):
            for pair in () if taken else readings.of_file(file):
                if (
                    readings.allowed[pair]
                    and readings.targets[pair] in assignment.file_of
                    and not self._accepted.read_as_another(pair)
                ):
                    found.append(file)
                    break
        return found

    def _fit(self, form):
        readings, files, chosen = self._readings, {}, {}
        for pair in readings.of_form[form]:
            target = readings.targets[pair]
            if not self._labels.is_group(target) and self._is_possible(pair):
                files.setdefault(target, []).append(readings.files[pair])
        for label, found in files.items():
            if len(found) > 1:
                found = self._exact_files(label, found)
            if len(found) == 1 or not self._assignment.differ(found):
                chosen[label] = found[0]
        return _Fit(form, files, chosen)

    def _may_follow(self, fit):
        files = [files[0] for files in fit.files.values()]
        return self._accepted.may_follow(fit.form, files)

    def _is_unknown_dataset(self, fit):
        """Tells whether a form without datasets is the folder of an unknown one.

        In the same archive, folders beside it are those of datasets with labels.
        """
        readings = self._readings
        form = readings.forms[fit.form]
        if form.dataset != NOWHERE or not form.folders:
            return False
        above = form.folders.rpartition("/")[0]
        number = readings.find_form(
            Form(above, FOLDER, below="", has_extension=form.has_extension)
        )
        if number is None:
            return False
        entries = readings.entries
        archives = {
            id(entries[readings.files[pair]].archive)
            for pair in readings.of_form[number]
            if readings.allowed[pair]
        }
        return all(
            id(entries[file].archive) in archives
            for files in fit.files.values()
            for file in files
        )

    def _exact_files(self, label, files):
        """Returns the files whose names fit byte for byte; all of them if none does."""
        names = [self._assignment.entries[file].name for file in files]
        exact = [
            file
            for file, name in zip(files, names, strict=True)
            if self._labels.has_exact_key(label, name)
        ]
        return exact or files

    def _is_possible(self, pair):
        return (
            self._readings.allowed[pair]
            and self._assignment.is_open(pair)
            and not self._accepted.read_as_another(pair)
        )

    def _compare_labels(self, fit):
        """Refuses a form if another may be right that reads files as other labels.

        Where neither label is needed, the file becomes nobody's.
        """
        assignment, readings = self._assignment, self._readings
        others = {}
        for label, files in fit.files.items():
            for file in files:
                for pair in readings.of_file(file):
                    members = self._labels.members(readings.targets[pair])
                    if label not in members and assignment.is_open(pair):
                        form = readings.form_numbers[pair]
                        others.setdefault(form, []).append((file, label, members))
        for form, found in others.items():
            if not self._may_be_right(form, fit):
                continue
            for file, label, members in found:
                for other in members:
                    is_needed = assignment.needed[label] or assignment.needed[other]
                    if is_needed and not assignment.closed[other]:
                        raise assignment.several_labels(
                            file, (label, other), (fit.form, form)
                        )
            for file, label, _ in found:
                pairs = readings.of_label(label)
                files = [
                    readings.files[p] for p in pairs if readings.form_numbers[p] == form
                ]
                assignment.withdraw(label, [file, *files])

    def _may_be_right(self, form, fit):
        """Tells whether another form may be right that reads files as other labels.

        If every image has a label, the right form reads every file as one, and no form
        fits more labels.
        """
        readings, files, targets = self._readings, set(), set()
        for pair in filter(self._assignment.is_open, readings.of_form[form]):
            files.add(readings.files[pair])
            targets.add(readings.targets[pair])
        labels = {n for target in targets for n in self._labels.members(target)}
        closed = self._assignment.closed
        has_more = any(n not in fit.files and not closed[n] for n in labels)
        strength = min(len(files), len(labels))
        return strength * (_CERTAIN if has_more else 1) >= len(fit.chosen)

    def _compare_files(self, fit):
        """Refuses a form if another may be right that has other files for its labels.

        A label that is not needed gets none of them.
        """
        assignment, readings = self._assignment, self._readings
        used = {file for files in fit.files.values() for file in files}
        others = {}
        for label in fit.files:
            for pair in readings.of_label(label):
                if readings.files[pair] not in used and self._is_possible(pair):
                    form = readings.form_numbers[pair]
                    others.setdefault(form, []).append((label, readings.files[pair]))
        for form, found in others.items():
            if not self._may_have_right_files(form, fit):
                continue
            for label, file in found:
                files = [*fit.files[label], file]
                if assignment.differ(files):
                    if assignment.needed[label]:
                        raise assignment.several_images(label, files)
                    assignment.withdraw(label, files)

    def _may_have_right_files(self, form, fit):
        forms = self._readings.forms
        has_name = forms[form].dataset != NOWHERE
        fit_has_name = forms[fit.form].dataset != NOWHERE
        if fit_has_name and not has_name:
            return False
        other = self._fit(form)
        if not self._may_follow(other):
            return False
        # In the form with an extension, the file `a.jpg` may be the image of a key `a`
        # without a label. Otherwise, nobody could tell which of two images is meant.
        alike = forms[form]._replace(has_extension=forms[fit.form].has_extension)
        is_other_key = alike == forms[fit.form] and not any(
            label not in fit.files for label in other.files
        )
        return len(other.files) * (1 if is_other_key else _CERTAIN) >= len(fit.chosen)

    def _accept(self, fit):
        assignment = self._assignment
        for label, files in fit.files.items():
            if assignment.closed[label]:
                continue
            if label in fit.chosen:
                if not assignment.taken[fit.chosen[label]]:
                    assignment.assign(label, fit.chosen[label])
            elif assignment.needed[label]:
                raise assignment.several_images(label, files)
            else:
                assignment.withdraw(label, files)
        self._accepted.add(fit.form, fit.chosen.values())

    def _open_groups(self):
        """Returns a dict from each group to a dict from its files to their form."""
        readings, found = self._readings, {}
        for form, pairs in enumerate(readings.of_form):
            groups = [
                pair
                for pair in pairs
                if self._labels.is_group(readings.targets[pair])
                and self._is_possible(pair)
            ]
            files = [readings.files[pair] for pair in groups]
            if self._accepted.may_follow(form, files):
                for pair in groups:
                    files = found.setdefault(readings.targets[pair], {})
                    files[readings.files[pair]] = form
        return found

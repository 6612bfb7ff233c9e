"""Which file is whose image, while it is being decided."""

import hashlib

from yolov3_tf2.errors import InputError


class Assignment:
    """The files that labels have so far.

    A label is the index of an identity, a file that of an entry.

    Attributes:
        labels: the `Labels`.
        readings: the `Readings` of all files.
        entries: list of all `Entry`.
        needed: for each label, whether it is converted.
        file_of: dict from labels to files.
        closed: for each label, whether it is decided; also that its image is not known.
        taken: for each file, whether it is decided; also that it is nobody's image.
    """

    def __init__(self, labels, readings, needed):
        """Decides nothing yet.

        Args:
            labels: the `Labels`.
            readings: their `Readings`.
            needed: the identities that are converted.
        """
        self.labels, self.readings, self.entries = labels, readings, readings.entries
        self.needed = bytearray(identity in needed for identity in labels.identities)
        self.file_of = {}
        self.closed = bytearray(len(labels.identities))
        self.taken = bytearray(len(self.entries))
        self._digests = {}

    def assign(self, label, file):
        """Gives a label its file."""
        self.file_of[label] = file
        self.withdraw(label, [file])

    def withdraw(self, label, files):
        """Leaves a label without a file, and files without a label."""
        self.closed[label] = True
        for file in files:
            self.taken[file] = True

    def is_open(self, pair):
        """Tells whether the file of a pair and one of its labels are undecided."""
        target = self.readings.targets[pair]
        if self.taken[self.readings.files[pair]]:
            return False
        if not self.labels.is_group(target):
            return not self.closed[target]
        return not all(map(self.closed.__getitem__, self.labels.members(target)))

    def open_labels(self):
        """Returns a list of the labels that are undecided."""
        return [label for label, closed in enumerate(self.closed) if not closed]

    def differ(self, files):
        """Tells whether some files have different bytes; each is read once at most."""
        return any(self._digest(f) != self._digest(files[0]) for f in files[1:])

    def _digest(self, file):
        if file not in self._digests:
            entry = self.entries[file]
            content = entry.archive.read(entry.name)
            self._digests[file] = hashlib.blake2b(content, digest_size=16).digest()
        return self._digests[file]

    def several_images(self, label, files):
        """Returns an `InputError`: different files fit a label."""
        dataset, key = self.labels.identities[label]
        entries = [self.entries[file] for file in files]
        listed = ", ".join(f"{entry.archive.name}: {entry.name}" for entry in entries)
        folders = [entry.path.rpartition("/")[0] for entry in entries]
        has_name = [dataset in self.readings.names_in(each) for each in folders]
        can_rename = dataset in self.labels.datasets and not any(has_name)
        rename = ", or rename its folder to the name of the dataset" * can_rename
        return InputError(
            f"'{key}' of dataset '{dataset}' matches {len(entries)} different images: "
            f"{listed}; give only the right one{rename}."
        )

    def several_labels(self, file, labels, forms):
        """Returns an `InputError`: a file fits two labels.

        Args:
            file: the file.
            labels: the two.
            forms: the forms in which it fits them, two or one.
        """
        names = ["/".join(filter(None, self.labels.identities[n])) for n in labels]
        if len(set(forms)) > 1:
            names = [
                f"{name} (as {self.readings.forms[form]})"
                for name, form in zip(names, forms, strict=True)
            ]
        entry = self.entries[file]
        return InputError(
            f"{entry.archive.name}: {entry.name} is the image of both {names[0]} and "
            f"{names[1]}; expected one for each. Give all images, those of each "
            "dataset in a folder of its name."
        )

"""Finds labels by their dataset and their data key."""

from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.names import normalise_path, normalise_slashes


class Labels:
    """The labels of an export by their keys; a label is the index of its identity.

    A target is what a file may be the image of: a label, or a larger number for a group
    of labels between which the file's path does not decide.

    Attributes:
        identities: list of (dataset, data_key).
        dataset_names: set of the names of all datasets.
        datasets: those of them that tell images apart: all or none.
        has_twins: whether some identities differ in their Unicode form alone.
    """

    def __init__(self, identities, exact, names_count):
        """Lists labels.

        Args:
            identities: list of (dataset, data_key).
            exact: dict from some of them to their names in another Unicode form, as
                the export has them.
            names_count: whether folders and archives may be named like datasets.
        """
        self.identities = identities
        self._exact = exact
        self._by_key, self._groups, self._group_numbers = {}, [], {}
        self.has_twins, names = False, set()
        for label, (dataset, key) in enumerate(identities):
            dataset, key = normalise_path(dataset), normalise_path(key)
            names.add(dataset)
            # Most keys have one label only: 100,000 dicts would take 20 MB.
            found = self._by_key.setdefault(key, label)
            if not isinstance(found, dict) and found != label:
                found = {normalise_path(identities[found][0]): (found,)}
                self._by_key[key] = found
            if isinstance(found, dict):
                self.has_twins |= dataset in found
                found[dataset] = (*found.get(dataset, ()), label)
        self.dataset_names = names - {""}
        self.datasets = self.dataset_names if names_count else set()

    def __contains__(self, key):
        return key in self._by_key

    def find(self, dataset, key, name, written=None):
        """Returns the target of a dataset and a key, None if there is no such label.

        Args:
            dataset, key: normalised names.
            name: the name of a file, which decides where the Unicode form matters.
            written: the dataset as it is written there; None if that is unknown.
        """
        found = self._by_key.get(key)
        if isinstance(found, dict):
            twins = found.get(dataset, ())
            return self._target(twins, name, written) if twins else None
        if found is None or normalise_path(self.identities[found][0]) != dataset:
            return None
        return found

    def find_key(self, key, name):
        """Returns the target of a key, None if there is no such label; see `find`."""
        found = self._by_key.get(key)
        if not isinstance(found, dict):
            return found
        if len(found) == 1:
            return self._target(*found.values(), name, None)
        if key not in self._group_numbers:
            self._add_group(key, sum(found.values(), ()))
        return self._group_numbers[key]

    def members(self, target):
        """Returns the labels of a target as a set."""
        if target < len(self.identities):
            return {target}
        return self._groups[target - len(self.identities)]

    def is_group(self, target):
        return target >= len(self.identities)

    def has_exact_key(self, label, name):
        """Tells whether a file's name ends in the key of a label, byte for byte."""
        identity = self.identities[label]
        key = f"/{self._exact.get(identity, identity)[1]}"
        path = f"/{normalise_slashes(name)}"
        return path.endswith(key) or without_extension(path).endswith(key)

    def _target(self, twins, name, written):
        """Returns the label of those alike in NFC that a file is for."""
        if len(twins) == 1:
            return twins[0]
        exact = [label for label in twins if self.has_exact_key(label, name)]
        if len(exact) > 1:  # Their datasets differ, not their keys.
            exact = [n for n in exact if self.identities[n][0] == written]
        if len(exact) == 1:
            return exact[0]
        if twins not in self._group_numbers:
            self._add_group(twins, twins)
        return self._group_numbers[twins]

    def _add_group(self, name, labels):
        self._group_numbers[name] = len(self.identities) + len(self._groups)
        self._groups.append(frozenset(labels))


def without_extension(path):
    """Returns a path without the extension of an image; empty if it has none."""
    return path.rpartition(".")[0] if is_image_name(path) else ""

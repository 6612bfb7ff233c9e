"""Labels that have no file in any form of the archives, and files that may be theirs.

All functions take an `Assignment`.
"""

from functools import lru_cache, partial
from typing import NamedTuple

from superbai.matching.archive_forms import NOWHERE, Entry, find_places
from superbai.matching.label_names import without_extension
from yolov3_tf2.names import normalise_path


class Elsewhere(NamedTuple):
    """A file that may be the image of a label, and is not taken for it.

    Attributes:
        entry: the `Entry`.
        dataset: the other dataset that its folder or its archive is named like; empty
            if only the file name is that of the label.
    """

    entry: Entry
    dataset: str


def assign_project_folder(assignment):
    """Gives the files of a folder that is named like a dataset to all datasets.

    That is the folder of the project if it has exactly one file for every label, no
    folder is named like another dataset, and the labels of the others have keys with
    folders that the dataset does not have.

    Returns:
        The name of the folder or archive; empty if there is none.
    """
    readings, labels = assignment.readings, assignment.open_labels()
    for form, pairs in enumerate(readings.of_form if labels else ()):
        if readings.forms[form].dataset != NOWHERE:
            continue
        files = {readings.targets[pair]: readings.files[pair] for pair in pairs}
        if (
            len(files) == len(pairs) == len(assignment.closed)
            and not any(map(assignment.labels.is_group, files))
            and assignment.file_of.items() <= files.items()
        ):
            name = _project_name(assignment, labels)
            for label in labels if name else ():
                assignment.assign(label, files[label])
            return name
    return ""


def assign_by_name(assignment):
    """Gives labels the files whose names alone are theirs; returns these labels."""
    found = {
        label: file
        for label, file in _only_files(assignment).items()
        if not _other_dataset(assignment, label, file)
    }
    for label, file in found.items():
        assignment.assign(label, file)
    return list(found)


def find_in_other_datasets(assignment):
    """Returns the labels whose files lie in a folder or archive of another dataset.

    That is one named like it, if none below is named like the dataset of the label.
    """
    names, found = assignment.labels.dataset_names, []
    lengths = {1 + name.count("/") for name in names}
    find = lru_cache(1024)(partial(find_places, names, lengths))
    for label, file in assignment.file_of.items():
        dataset = normalise_path(assignment.labels.identities[label][0])
        places = find(assignment.entries[file].path.rpartition("/")[0])
        if places and not any(p.is_allowed and p.dataset == dataset for p in places):
            found.append(label)
    return found


def find_elsewhere(assignment):
    """Returns a dict from needed labels without a file to an `Elsewhere`."""
    readings, found = assignment.readings, {}
    labels = [label for label in assignment.open_labels() if assignment.needed[label]]
    by_name = _only_files(assignment) if labels else {}
    for label in labels:
        pairs = filter(assignment.is_open, readings.of_label(label))
        by_key = {readings.files[pair] for pair in pairs}
        file = min(by_key) if len(by_key) == 1 else by_name.get(label)
        if file is None:
            continue
        dataset = _other_dataset(assignment, label, file)
        if dataset or label in by_name:
            found[label] = Elsewhere(assignment.entries[file], dataset)
    return found


def _project_name(assignment, labels):
    """Returns the dataset that folders are named like, if it has none of `labels`."""
    names, identities = set(), assignment.labels.identities
    for folders in {entry.path.rpartition("/")[0] for entry in assignment.entries}:
        names |= assignment.readings.names_in(folders)
    if len(names) != 1:
        return ""
    (name,) = names
    known = {key.partition("/")[0] for dataset, key in identities if dataset == name}
    parts = [identities[label][1].partition("/") for label in labels]
    is_other = all(slash and folder not in known for folder, slash, _ in parts)
    return name if is_other else ""


def _other_dataset(assignment, label, file):
    """Returns another dataset that a folder of a file is named like; else empty."""
    folders = assignment.entries[file].path.rpartition("/")[0]
    own = assignment.labels.identities[label][0]
    return min(assignment.readings.names_in(folders) - {own}, default="")


def _only_files(assignment):
    """Returns a dict from open labels to the only free file with their name."""
    label_of = {}
    for label, (_, key) in enumerate(assignment.labels.identities):
        name = key.rpartition("/")[2]
        label_of[name] = None if name in label_of else label
    files, labels = {}, {}
    for file, entry in enumerate(assignment.entries):
        name = entry.path.rpartition("/")[2]
        for each in {name, without_extension(name)}:
            label = label_of.get(each)
            if label is None or assignment.closed[label] or assignment.taken[file]:
                continue
            files.setdefault(label, []).append(file)
            labels.setdefault(file, []).append(label)
    # The file `a.jpg` may be that of `a` and of `a.jpg`.
    return {
        label: found[0]
        for label, found in files.items()
        if len(found) == len(labels[found[0]]) == 1
    }

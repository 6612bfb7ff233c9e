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

from typing import NamedTuple

from superbai.matching import leftover_images
from superbai.matching.archive_forms import Entry, Readings
from superbai.matching.assignment import Assignment
from superbai.matching.form_choice import FormChoice
from superbai.matching.label_names import Labels


class Match(NamedTuple):
    """Which image belongs to which label.

    Attributes:
        entries: dict from (dataset, data_key) to `Entry`, of the labels with an image.
        by_name: set of those that were found by their file name alone.
        rest: list of the entries that belong to no label.
        elsewhere: dict from (dataset, data_key) of needed labels without an image to a
            `leftover_images.Elsewhere`.
        project_folder: name of the folder or the archive that is named like a dataset
            and holds the images of all; empty if there is none.
        in_other_datasets: set of the (dataset, data_key) whose images lie in a folder
            or an archive that is named like another dataset, if names do not count.
        unused: set of the numbers of those in `rest` that fit labels which have another
            file.
    """

    entries: dict[tuple[str, str], Entry]
    by_name: set[tuple[str, str]]
    rest: list[Entry]
    elsewhere: dict[tuple[str, str], leftover_images.Elsewhere]
    project_folder: str
    in_other_datasets: frozenset[tuple[str, str]] = frozenset()
    unused: frozenset[int] = frozenset()


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
    assignment = Assignment(labels, Readings(labels, archives), needed)
    choice = FormChoice(assignment)
    choice.match_forms()
    choice.share_copies()
    project_folder = leftover_images.assign_project_folder(assignment)
    by_name = ()
    if find_by == "file_name":
        by_name = leftover_images.assign_by_name(assignment)
    in_others = ()
    if find_by == "key":
        in_others = leftover_images.find_in_other_datasets(assignment)
    elsewhere = leftover_images.find_elsewhere(assignment)
    unused = choice.find_unused()
    entries, found = assignment.entries, assignment.file_of.items()
    used = {file for _, file in found}
    return Match(
        {identities[label]: entries[file] for label, file in sorted(found)},
        {identities[label] for label in by_name},
        [entry for entry in entries if entry.number not in used],
        {identities[label]: place for label, place in elsewhere.items()},
        project_folder,
        frozenset(identities[label] for label in in_others),
        frozenset(unused),
    )

"""The label download of the Suite, opened: finds and reads its JSON files.

It holds `project.json`, `meta/<dataset>/<data_key>.json` for each image, and
`labels/<label_id>.json`.
"""

import json
import re
from typing import NamedTuple

from superbai import export_json, label_json
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.archive_entries import describe_nested
from yolov3_tf2.files.image_kinds import split_images
from yolov3_tf2.files.json_values import as_dict, parse_json

# The largest known label is 5 MB; 32 MB of JSON takes a few hundred MB of memory.
MAX_JSON_BYTES = 32 * 2**20


class Meta(NamedTuple):
    """What the export says about an image that is converted.

    Attributes:
        entry: the entry of the meta in the archive.
        label_name: the entry of its label; empty if it has none yet.
        tags: set of its tags, lower case.
        labelled_size: (width, height) when it was labelled, None if unknown.
        is_submitted: whether its label was submitted, and so is complete.
    """

    entry: str
    label_name: str
    tags: frozenset[str]
    labelled_size: tuple[int, int] | None
    is_submitted: bool


def find_root(archive):
    """Returns the folder of an archive that holds the whole export, with its slash.

    Args:
        archive: the result of `archives.open_archive`.

    Returns:
        The folder of project.json, "" if that is in none; None without project.json.

    Raises:
        InputError: there are several.
    """
    projects = [e for e in archive.files if e.rpartition("/")[2] == "project.json"]
    if not projects:
        return None
    projects.sort(key=lambda e: (e.count("/"), e))
    if len(projects) > 1 and projects[0].count("/") == projects[1].count("/"):
        raise InputError(
            f"{archive.name} holds several exports, {projects[0]} and {projects[1]}; "
            "expected one."
        )
    return projects[0].removesuffix("project.json")


class LabelArchive:
    """The zip or folder of a label export, open for reading.

    Attributes:
        name: what to call it in an error.
        kind: what it is, for the log.
        holds_images: whether the images lie beside the labels.
        project: the parsed project.json.
    """

    holds_images = False
    kind = "export of the Superb AI Suite"

    def __init__(self, archive):
        """Reads project.json.

        Args:
            archive: the result of `archives.open_archive`; `close` closes it.

        Raises:
            InputError: it is not a label export.
        """
        self._archive, self.name = archive, archive.name
        self._root = find_root(archive)
        if self._root is None:
            raise self._no_project()
        self.project = self._load_object(f"{self._root}project.json")

    def close(self):
        self._archive.close()

    def count_images(self):
        """Returns how many images lie beside the labels."""
        return 0

    def load_json(self, entry):
        """Returns the parsed JSON of an entry."""
        where = f"{self.name}: {entry}"
        content = self._archive.read(entry, MAX_JSON_BYTES)
        value = parse_json(content, where)
        # Half of a surrogate pair cannot be written anywhere, and any text of the
        # export may become part of a message or of a record.
        if re.search(rb"\\u[dD][89a-fA-F]", content):
            try:
                json.dumps(value, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(f"{where}: malformed JSON: {error}") from error
        return value

    def load_label(self, entry):
        """Returns the parsed label of a `Meta.label_name`."""
        return self.load_json(entry)

    def read_metas(self, include_unsubmitted, notes):
        """Reads what the export says about each image.

        Args:
            include_unsubmitted: whether to convert images that are not submitted yet.
            notes: a `notes.Notes`, which is added to, with the metas that cannot be
                read too.

        Returns:
            A dict from the (dataset, data_key) of all images to the same in the Unicode
            form of the export; and a dict from those that are converted to their
            `Meta`.
        """
        files = set(self._archive.files)
        prefix, entries = self._list_metas(files)
        entry_of, metas = {}, {}
        for entry in entries:
            where, path = f"{self.name}: {entry}", entry.removeprefix(prefix)
            try:
                content = self._load_meta(entry, files)
                if content is None:
                    continue
                identity = export_json.identity(content, path, where)
            except InputError as error:
                # Its image is one of the export nevertheless.
                entry_of.setdefault(export_json.identity({}, path, where), entry)
                notes.unreadable.append((entry, str(error)))
                continue
            twin = entry_of.setdefault(identity, entry)
            if twin is not entry:
                raise InputError(
                    f"{self.name}: '{identity[1]}' of dataset '{identity[0]}' is "
                    f"described twice: {twin}, {entry}."
                )
            try:
                meta = self._read_meta(
                    content, entry, files, include_unsubmitted, notes
                )
            except InputError as error:
                notes.unreadable.append((entry, str(error)))
                continue
            if meta:
                metas[identity] = meta
        names = export_json.name_identities(list(entry_of))
        exact = {name: identity for identity, name in names.items()}
        self._entry_of = {names[identity]: e for identity, e in entry_of.items()}
        return exact, {names[identity]: meta for identity, meta in metas.items()}

    def _list_metas(self, files):
        """Returns the folder of the metas, with its slash, and a list of them."""
        prefix = f"{self._root}meta/"
        entries = sorted(
            e for e in files if e.startswith(prefix) and e.endswith(".json")
        )
        if not entries:
            raise InputError(
                f"{self.name}: expected a meta/<dataset>/<data_key>.json for every "
                "image, got none."
            )
        return prefix, entries

    def _load_meta(self, entry, files):
        """Returns the parsed meta; None if the entry is another file."""
        return self._load_object(entry)

    def _read_meta(self, content, entry, files, include_unsubmitted, notes):
        """Returns a `Meta`; None where the image is left out, and counts the reason."""
        where = f"{self.name}: {entry}"
        status = str(content.get("status") or "").strip().upper()
        if not status:
            notes.assumed["images without a status: treated as submitted"] += 1
            status = "SUBMITTED"
        is_submitted = status == "SUBMITTED"
        # Skipped images are never used, whatever the parameter says.
        is_allowed = include_unsubmitted and status != "SKIPPED"
        if not is_submitted and not is_allowed:
            notes.left_out[f"images with status {status:.20}"] += 1
            return None
        label_name = self._find_label(content, entry, files, is_submitted)
        if export_json.is_in_consensus(content, where) and not label_json.has_objects(
            label_name and self.load_label(label_name), f"{self.name}: {label_name}"
        ):
            # The labels of several people exist, but none is decided on.
            notes.left_out["images whose consensus label is undecided"] += 1
            return None
        return Meta(
            entry,
            label_name,
            export_json.tags(content, where),
            export_json.labelled_size(content, where),
            is_submitted,
        )

    def _find_label(self, content, entry, files, is_submitted):
        """Returns the entry of the label of a meta; "" if it has none yet."""
        where = f"{self.name}: {entry}"
        label_name = export_json.label_name(content, self._root, where)
        if label_name in files:
            return label_name
        if is_submitted:
            raise InputError(
                f"{where} names {label_name or 'no label'}, which is not in the "
                "archive; is the export incomplete?"
            )
        return ""

    def _load_object(self, entry):
        where = f"{self.name}: {entry}"
        return as_dict(self.load_json(entry), where, optional=True)

    def _no_project(self):
        nested = describe_nested(self._archive.files)
        if nested:
            return InputError(f"{self.name} holds {nested}.")
        if split_images(self._archive)[0]:
            return InputError(
                f"{self.name} holds images and no project.json: are the inputs "
                "'images' and 'labels' swapped?"
            )
        return InputError(
            f"{self.name} holds other files and no project.json: expected the "
            "label export of the Suite (Export, then Export history)."
        )

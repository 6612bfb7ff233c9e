"""The folder that `superb download` and `spb download` write, opened.

It holds `project.json`, and for each image `<dataset>/<data_key>` and beside it
`<dataset>/<data_key>.json`: what an export has in the meta and, as `result`, in the
label of the image. superb-ai-cli and the older spb-cli write the same.
"""

from contextlib import suppress
from itertools import islice

from superbai import export_json, label_json
from superbai.image_matching import Match
from superbai.label_archive import MAX_JSON_BYTES, LabelArchive, find_root
from superbai.matching.archive_forms import Entry
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.files.json_values import as_dict, parse_json
from yolov3_tf2.names import normalise_path

# How many files are read to recognise a download, where the first ones are damaged.
_SAMPLES = 10
_MAX_SHOWN = 80  # Characters of a line of error.log.


def open_labels(path):
    """Opens an export or a download of labels; the content decides.

    Args:
        path: a `pathlib.Path` of a zip, tar or folder.

    Returns:
        A `LabelArchive` or a `DownloadArchive`.

    Raises:
        InputError: it is neither, or cannot be read.
    """
    archive = archives.open_archive(path)
    try:
        is_download = find_sample(archive) is not None
        return (DownloadArchive if is_download else LabelArchive)(archive)
    except BaseException:
        archive.close()
        raise


def find_sample(archive):
    """Returns the entry of a label in a download; None if the archive is none.

    The names do not tell: a dataset may be called `labels` or `meta`.

    Args:
        archive: the result of `archives.open_archive`.
    """
    root = find_root(archive) or ""
    files = dict.fromkeys(archive.files)
    entries = [
        e
        for e in files
        if e.startswith(root) and e.endswith(".json") and e != f"{root}project.json"
    ]
    # A file of another program may be among them, but hardly beside an image.
    beside = (e for e in entries if e.removesuffix(".json") in files)
    for entry in (*islice(beside, _SAMPLES), *entries[:_SAMPLES]):
        try:
            content = archive.read(entry, MAX_JSON_BYTES)
            content = parse_json(content, entry)
        except InputError:
            continue
        if isinstance(content, dict) and {"data_key", "result"} <= content.keys():
            return entry
    return None


class DownloadArchive(LabelArchive):
    """The folder of a download, or a zip or tar of it, open for reading.

    Attributes:
        name: what to call it in an error.
        project: the parsed project.json; where that is missing, as after a failure of
            the download, one with the classes that the labels have.
    """

    holds_images = True
    kind = "download of Superb AI (superb download or spb download)"

    def __init__(self, archive):
        """Reads project.json.

        Args:
            archive: the result of `archives.open_archive` in which `find_sample` finds
                an entry; `close` closes it.
        """
        self._archive, self.name = archive, archive.name
        root = find_root(archive)
        self._has_project, self._root = root is not None, root or ""
        if archive.has_undeclared_names:
            # The labels declare the encoding of their keys, the archive does not.
            paths = ["/".join(identity) for identity, *_ in self._load_all()]
            archives.choose_encodings([archive], paths)
            self._root = find_root(archive) or ""
        if self._has_project:
            self.project = self._load_object(self._project)
        else:
            self._root = self._guess_root()
            self.project = self._project_of_labels()

    @property
    def _project(self):
        return f"{self._root}project.json"

    @property
    def _log(self):
        return f"{self._root}error.log"

    def count_images(self):
        return sum(map(is_image_name, self._archive.files))

    def load_label(self, entry):
        return self._load_object(entry).get("result")

    def read_metas(self, include_unsubmitted, notes):
        if not self._has_project:
            notes.assumed[
                "project.json is missing: the classes are those of the labels, by name"
            ] += 1
        identities, metas = super().read_metas(include_unsubmitted, notes)
        self._note_failures(set(identities), notes)
        return identities, metas

    def match_images(self, needed):
        """Finds the image of each label: the file beside it.

        Args:
            needed: the (dataset, data_key) that are converted.

        Returns:
            An `image_matching.Match`.

        Raises:
            InputError: two files could be the image of a needed label, or one file the
                image of two labels.
        """
        entries = [
            Entry(number, self._archive, name, normalise_path(name))
            for number, name in enumerate(self._archive.files)
        ]
        by_name = {entry.name: entry for entry in entries}
        by_path = {entry.path: entry for entry in entries}
        matched, owners = {}, {}
        for identity, label in self._entry_of.items():
            beside = by_name.get(label.removesuffix(".json"))
            path = normalise_path(f"{self._root}{'/'.join(identity)}")
            by_key = by_path.get(path)
            if beside and by_key and beside.path != path and identity in needed:
                raise InputError(
                    f"{self.name}: {label} is the label of '{identity[1]}' of dataset "
                    f"'{identity[0]}', but lies beside {beside.name}, and "
                    f"{by_key.name} is there too; expected each label beside its "
                    "image. Were files renamed?"
                )
            entry = beside or by_key
            if entry is None:
                continue
            other = owners.setdefault(entry.name, label)
            if other is not label:
                raise InputError(
                    f"{self.name}: {entry.name} is the image of both {other} and "
                    f"{label}; expected one for each."
                )
            matched[identity] = entry
        known = {*owners, *self._entry_of.values(), self._project, self._log}
        rest = [entry for entry in entries if entry.name not in known]
        return Match(matched, set(), rest, elsewhere={}, project_folder="")

    def _list_metas(self, files):
        return self._root, sorted(
            e
            for e in files
            if e.startswith(self._root) and e.endswith(".json") and e != self._project
        )

    def _load_meta(self, entry, files):
        where, content = f"{self.name}: {entry}", self.load_json(entry)
        is_label = isinstance(content, dict) and "data_key" in content
        if not is_label and entry.removesuffix(".json") not in files:
            return None  # A file of another program.
        missing = {"data_key", "result"} - as_dict(content, where).keys()
        if missing:
            raise InputError(
                f"{where}: expected a label with data_key and result, got no "
                f"{', no '.join(sorted(missing))}; was it written by another program?"
            )
        return content

    def _find_label(self, content, entry, files, is_submitted):
        # Without an object, the result may be null.
        return "" if content["result"] is None else entry

    def _guess_root(self):
        """Returns the folder of the datasets from the place of one label."""
        entry = find_sample(self._archive)
        content = self._load_object(entry)
        identity = export_json.identity(content, entry, f"{self.name}: {entry}")
        end = f"{'/'.join(identity)}.json"
        if not f"/{normalise_path(entry)}".endswith(f"/{end}"):
            return ""
        # Not by length, which differs between the two Unicode forms.
        folders = entry.split("/")[: -end.count("/") - 1]
        return "".join(f"{folder}/" for folder in folders)

    def _load_all(self):
        """Yields identity, entry and parsed JSON of each label that can be read."""
        files = set(self._archive.files)
        for entry in self._list_metas(files)[1]:
            try:
                content = self._load_meta(entry, files)
                if content is not None:
                    path, where = entry.removeprefix(self._root), self.name
                    yield export_json.identity(content, path, where), entry, content
            except InputError:
                continue  # `read_metas` notes it.

    def _note_failures(self, identities, notes):
        """Notes the images without a label of which error.log says that they failed."""
        if self._log not in self._archive.files:
            return
        content = self._archive.read(self._log, MAX_JSON_BYTES)
        for line in filter(bytes.strip, content.split(b"\n")):
            name = line.decode("utf-8", "replace")[:_MAX_SHOWN]
            with suppress(InputError):
                row = as_dict(parse_json(line, self._log), self._log)
                identity = (str(row.get("dataset_name")), str(row.get("key")))
                identity = tuple(map(normalise_path, identity))
                # An older run may have failed where a newer one did not.
                if identity in identities:
                    continue
                name = "/".join(identity)
            notes.leave_out("images without a label that failed to download", name)

    def _project_of_labels(self):
        """Returns a project with the classes and the type that the labels name."""
        classes, types = set(), set()
        for _, entry, content in self._load_all():
            types.add(str(content.get("workapp") or "IMAGE_SIESTA"))
            with suppress(InputError):  # Reading the label raises it again.
                found = list(label_json.list_classes(content["result"], entry))
                classes |= {(n, k, i if i is None else str(i)) for n, i, k in found}
        if not classes:
            raise InputError(
                f"{self.name} has no project.json, and no label with an object that "
                "could tell the classes; download it again."
            )
        # A project has one type; any other than that of images is refused.
        project_type = min(types, key=lambda name: (name.startswith("IMAGE"), name))
        return {
            "type": project_type.lower().replace("_", "-"),
            "object_detection": {
                "object_classes": [
                    {"name": name, "annotation_type": kind, "id": class_id}
                    for name, kind, class_id in sorted(
                        classes, key=lambda each: tuple(map(str, each))
                    )
                ]
            },
        }

"""Finds the picture of a data key of the Suite among the files of archives."""

from collections import defaultdict
from pathlib import PurePosixPath

from yolov3_tf2.archives import normalise
from yolov3_tf2.errors import InputError


class PictureIndex:
    """Finds the picture of a (dataset, data_key)."""

    def __init__(self, archives):
        """Lists the files of open archives."""
        self._by_name = defaultdict(list)
        self._position = {}
        for archive in archives:
            for entry in archive.files:
                self._position[archive, entry] = len(self._position)
                path = normalise(entry)
                for name in _names(path):
                    self._by_name[name].append((archive, entry, path))

    def position(self, item):
        """The place of an item's picture in the order of the archives."""
        return self._position[item.archive, item.entry]

    def find(self, dataset, key):
        """Returns (archive, entry), or None where there is no such picture.

        A path that has the dataset before the key goes before one that has not, the key
        as it is before the key with an extension more, and a shallow path before a deep
        one: `P/a.jpg` is the picture of `a.jpg`, and `P/sub/a.jpg` that of `sub/a.jpg`.
        Of several that are left, the only one that names the dataset anywhere, or the
        first of those that all have the same bytes.

        Raises:
            InputError: several fit equally well.
        """
        ranked = defaultdict(list)
        for archive, entry, path in self._by_name.get(PurePosixPath(key).name, ()):
            stem = str(PurePosixPath(path).with_suffix(""))
            for rank, name in enumerate((f"{dataset}/{key}", key)):
                for extra, ending in enumerate((path, stem)):
                    if f"/{ending}".endswith(f"/{name}"):
                        place = (rank, extra, path.count("/"))
                        ranked[place].append((archive, entry))
        if not ranked:
            return None
        best = ranked[min(ranked)]
        if len(best) > 1:
            names_it = [
                found
                for found in best
                if f"/{dataset}/" in f"/{normalise(found[1])}" and dataset
            ]
            if len(names_it) == 1:
                return names_it[0]
            if len({archive.read(entry) for archive, entry in best}) > 1:
                raise InputError(
                    f"'{key}' of dataset '{dataset}' matches {len(best)} different "
                    "pictures: " + ", ".join(f"{a.name}: {e}" for a, e in best)
                )
        return best[0]

    def find_by_name(self, key):
        """Returns the only (archive, entry) whose file name is that of a key, or None.

        The folders are not compared; the caller must see that no other key has it.
        """
        found = self._by_name.get(PurePosixPath(key).name, ())
        return found[0][:2] if len(found) == 1 else None

    def check_used_once(self, items):
        """Raises an `InputError` if two items have the same picture."""
        used = {}
        for item in items:
            other = used.setdefault((item.archive, item.entry), item)
            if other is not item:
                raise InputError(
                    f"{item.archive.name}: {item.entry} is the picture of both "
                    f"{other.source_id} and {item.source_id}; expected one for each."
                )


def _names(path):
    """A file's name, and its name without the extension that the Suite may append."""
    base = PurePosixPath(path)
    return {base.name, base.stem}

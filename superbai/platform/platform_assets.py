"""The images of a project of Superb AI's new platform, and which of them is meant."""

from typing import NamedTuple

from yolov3_tf2.errors import InputError, list_first
from yolov3_tf2.files.json_values import as_dict, is_integer
from yolov3_tf2.names import normalise_path

# The states in which somebody has decided which boxes are right.
_DECIDED = ("in_review", "done", "skipped")
# The others.
OPEN_STATES = ("to_label", "in_progress")


class Asset(NamedTuple):
    """An image of a project.

    Attributes:
        id: a UUID, as text.
        filename: its only name; several images may share it.
        size: (width, height) in pixels, None if the platform does not know it.
        tags: list of texts.
        is_decided: whether somebody has submitted, approved or skipped it.
    """

    id: str
    filename: str
    size: tuple[int, int] | None
    tags: list
    is_decided: bool


class AssetIndex:
    """The images of a project by their names."""

    def __init__(self, assets):
        """Stores a list of `Asset`."""
        self._by_id = {asset.id.lower(): asset for asset in assets}
        self._by_name = {}
        for asset in assets:
            name = normalise_path(asset.filename)
            self._by_name.setdefault(name, []).append(asset)

    def find(self, name):
        """Returns the `Asset` of an image.

        A folder that is named like the id of an image says that it is that one.
        Otherwise the name counts, with as many of its folders as the platform knows:
        it usually knows none.

        Args:
            name: the name of the image in the annotations, with its folders.

        Raises:
            InputError: the project has no such image, or several.
        """
        parts = normalise_path(name).split("/")
        for part in parts[:-1]:
            if part.lower() in self._by_id:
                return self._by_id[part.lower()]
        for first in range(len(parts)):
            found = self._by_name.get("/".join(parts[first:]))
            if found and len(found) > 1:
                ids = list_first([asset.id for asset in found], ", ", 3)
                raise InputError(
                    f"{name}: the project has {len(found)} images of this name "
                    f"({ids}); put the image into a folder that is named like the id "
                    "of the right one."
                )
            if found:
                return found[0]
        raise InputError(
            f"{name}: the project does not have this image; add it on the platform, as "
            "this step uploads images to the Suite only."
        )

    def find_size(self, identity):
        """Returns the (width, height) of an image; None if it is unknown.

        Args:
            identity: its dataset, which does not count, and its name.
        """
        try:
            return self.find(identity[1]).size
        except InputError:
            return None  # `find` raises it where the image is needed.


def read_asset(state, where):
    """Returns the `Asset` of a workflow state of the platform."""
    state = as_dict(state, where)
    asset = as_dict(state.get("asset"), f"{where}: image {state.get('asset_id')}")
    properties = as_dict(asset.get("properties"), where, optional=True)
    size = (properties.get("width"), properties.get("height"))
    return Asset(
        str(state.get("asset_id")),
        str(asset.get("filename")),
        size if all(is_integer(side) and side > 0 for side in size) else None,
        list(state.get("tags") or []),
        state.get("status") in _DECIDED,
    )

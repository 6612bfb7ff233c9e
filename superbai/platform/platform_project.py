"""A project of Superb AI's new platform, as far as sending boxes needs it."""

import uuid
from contextlib import suppress

from superbai.platform import platform_assets, platform_labels
from superbai.platform.platform_errors import PlatformError, UnansweredError
from superbai.upload.project_classes import ProjectClasses
from yolov3_tf2.errors import InputError, list_first
from yolov3_tf2.files.json_values import as_dict, as_dicts
from yolov3_tf2.names import normalise_name

# Of one request, as the vendor states them. A row has under 400 bytes, so that the
# limit of 5 MB is never reached.
MAX_ROWS = 1000
MAX_DELETED = 500
MAX_ASSETS = 100
# Rows of a page of annotations.
_PAGE_ROWS = 200
# How often rows are sent whose answer is lost each time.
_TRIES = 3


class PlatformProject:
    """A project of the platform.

    Attributes:
        classes: the `ProjectClasses`; the ids in it are those of the platform.
    """

    def __init__(self, api, name):
        """Opens a project.

        Args:
            api: a `platform_api.PlatformApi`.
            name: its name or its id.

        Raises:
            InputError: there is none, or there are several, or it is not an image
                project.
        """
        self._api = api
        project = find_project(api, name)
        self._path, self._name = f"/projects/{project['id']}", project["name"]
        where = f"project '{self._name}': its classes"
        listed = as_dict(
            api.get(f"{self._path}/classes", f"cannot read {where}"), where
        )
        classes = as_dicts(listed.get("classes"), where, "class", optional=True)
        interface = platform_labels.make_project(
            [c for c in classes if not c.get("archived")]
        )
        self.classes = ProjectClasses(interface, self._name, by_name_only=False)

    def read_assets(self):
        """Returns all images of the project, a list of `platform_assets.Asset`."""
        action = f"project '{self._name}': cannot list its images"
        return [
            platform_assets.read_asset(state, f"project '{self._name}'")
            for state in self._api.pages(f"{self._path}/assets", action)
        ]

    def read_annotations(self, asset_ids):
        """Returns the annotations of images, a list of dicts.

        Args:
            asset_ids: list of at most `MAX_ASSETS` ids.
        """
        if not asset_ids:
            return []
        action = f"project '{self._name}': cannot read the boxes of its images"
        path = f"{self._path}/annotations"
        return list(
            self._api.pages(path, action, limit=_PAGE_ROWS, asset_ids=asset_ids)
        )

    def create(self, rows):
        """Adds annotations of a model, all or none.

        Args:
            rows: list of at most `MAX_ROWS` dicts, with ids of their own.

        Raises:
            PlatformError: a row is refused, and so all are; or the platform failed.
        """
        action = f"project '{self._name}': cannot store {len(rows)} boxes"
        # Never with replace, which would delete what people have drawn.
        body = {"annotations": rows, "source": "model", "replace": False}
        for left in reversed(range(_TRIES)):
            try:
                answer = self._api.post(
                    f"{self._path}/annotations/batch-create",
                    body,
                    action,
                    is_repeatable=False,
                )
            except UnansweredError:
                # All of them are stored, or none. Sent twice, they might be refused.
                if self._are_stored(rows):
                    return
                if not left:
                    raise
                continue
            created = as_dict(answer, action).get("created")
            if created != len(rows):
                raise PlatformError(
                    f"{action}: the platform says that it stored {created}."
                )
            return

    def delete(self, annotation_ids):
        """Deletes annotations; ids that are gone already make no difference.

        Args:
            annotation_ids: list of at most `MAX_DELETED` ids.
        """
        count = len(annotation_ids)
        self._api.post(
            f"{self._path}/annotations/batch-delete",
            {"ids": annotation_ids},
            f"project '{self._name}': cannot remove {count} boxes of an earlier run",
            is_repeatable=True,
        )

    def add_tags(self, asset_ids, tags):
        """Adds tags to images.

        Args:
            asset_ids: list of at most `MAX_ROWS` ids.
            tags: list of texts.
        """
        self._api.post(
            f"{self._path}/assets/batch-update-tags",
            {"asset_ids": asset_ids, "tags_add": tags},
            f"project '{self._name}': cannot add the tags {', '.join(tags)}",
            is_repeatable=True,
        )

    def _are_stored(self, rows):
        ids = list({row["asset_id"] for row in rows})
        stored = set()
        for first in range(0, len(ids), MAX_ASSETS):
            part = self.read_annotations(ids[first : first + MAX_ASSETS])
            stored |= {annotation.get("id") for annotation in part}
        return {row["id"] for row in rows} <= stored


def find_project(api, name):
    """Returns a project as the platform describes it, a dict.

    Args:
        api: a `platform_api.PlatformApi`.
        name: its name or its id; several projects may have one name.

    Raises:
        InputError: no image project is meant, or several are.
    """
    action = f"cannot find project '{name}'"
    if is_id(name):
        found = [as_dict(api.get(f"/projects/{name.strip()}", action), action)]
    else:
        projects = list(api.pages("/projects", action))
        names = {str(project.get("name")) for project in projects}
        found = [
            project
            for project in projects
            if normalise_name(str(project.get("name"))) == normalise_name(name)
        ]
        if not found:
            raise InputError(
                f"{action}: the workspace has no project of this name; it has: "
                f"{list_first(sorted(names), ', ') or 'none'}."
            )
    if len(found) > 1:
        ids = ", ".join(str(project.get("id")) for project in found)
        raise InputError(
            f"{action}: the workspace has {len(found)} of this name; give the id of "
            f"one instead: {ids}."
        )
    if found[0].get("dataset_kind", "image") != "image":
        raise InputError(
            f"{action}: expected a project of images, got one of "
            f"'{found[0]['dataset_kind']}'."
        )
    return found[0]


def is_id(text):
    """Whether a text is an id of the platform, a UUID with dashes."""
    with suppress(ValueError):
        return str(uuid.UUID(text.strip())) == text.strip().lower()
    return False

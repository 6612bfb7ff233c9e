"""A project of Superb AI's new platform, as far as sending boxes needs it."""

from superbai.platform import platform_assets, platform_labels
from superbai.platform.platform_api import PAGE_ROWS
from superbai.platform.platform_errors import PlatformError, UnansweredError
from superbai.platform.platform_lookup import find_project
from superbai.upload.project_classes import ProjectClasses
from yolov3_tf2.files.json_values import as_dict, as_dicts

# Of one request, as the vendor states them. A row has under 400 bytes, so that the
# limit of 5 MB is never reached.
MAX_ROWS = 1000
MAX_DELETED = 500
MAX_ASSETS = 100
# Rows of a page of annotations.
_PAGE_ROWS = 200
# How often images are listed at most, where people change some all the time.
_LISTINGS = 5
# How often rows are sent whose answer is lost each time.
_TRIES = 3


class PlatformProject:
    """A project of the platform.

    Attributes:
        classes: the `ProjectClasses`; the ids in it are those of the platform.
        decided_ids: set of the ids of the images of which somebody has decided which
            boxes are right, as far as they are read.
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
        self.decided_ids, self._known_states = set(), set()
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
        """Returns all images of the project, a list of `platform_assets.Asset`.

        While they are listed, people may change one: it comes to the front, so that
        the pages shift. So the front is read again, until nothing there is new.
        """
        action = f"project '{self._name}': cannot list its images"
        assets = {}
        for _ in range(_LISTINGS):
            num_known = len(self._known_states)
            for asset in self._read_changed(action):
                assets[asset.id] = asset
            if len(self._known_states) == num_known:
                break
        return list(assets.values())

    def read_decisions(self):
        """Updates `decided_ids`; an image stays in it even if it is reopened."""
        action = f"project '{self._name}': cannot read which images are decided"
        for _ in self._read_changed(action, status_not=platform_assets.OPEN_STATES):
            pass

    def _read_changed(self, action, **filters):
        """Yields the images that are new or have changed, and some others.

        The platform lists what was changed last first. So this ends at as many known
        states in a row as a page has, which is one request as a rule; unless they come
        in another order.
        """
        num_known, previous, is_sorted = 0, None, True
        path = f"{self._path}/assets"
        for state in self._api.pages(path, action, **filters):
            asset = platform_assets.read_asset(state, f"project '{self._name}'")
            if asset.is_decided:
                self.decided_ids.add(asset.id)
            changed_at = str(state.get("updated_at"))
            is_sorted = is_sorted and (previous is None or changed_at <= previous)
            known, previous = (asset.id, changed_at), changed_at
            num_known = num_known + 1 if known in self._known_states else 0
            self._known_states.add(known)
            yield asset
            if is_sorted and num_known >= PAGE_ROWS:
                return

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

    def create(self, select_rows):
        """Adds annotations of a model, all or none.

        Args:
            select_rows: function that returns at most `MAX_ROWS` dicts, with ids of
                their own. It is called before each try.

        Returns:
            The rows that are stored.

        Raises:
            PlatformError: a row is refused, and so all are; or the platform failed.
        """
        action = f"project '{self._name}': cannot store boxes"
        rows = []

        def make_body():
            rows[:] = select_rows()
            # Never with replace, which would delete what people have drawn.
            body = {"annotations": rows, "source": "model", "replace": False}
            return body if rows else None

        path = f"{self._path}/annotations/batch-create"
        for left in reversed(range(_TRIES)):
            try:
                answer = self._api.post(path, make_body, action, is_repeatable=False)
            except UnansweredError:
                # All of them are stored, or none. Sent twice, they might be refused.
                if self._are_stored(rows):
                    return rows
                if not left:
                    raise
                continue
            if answer is None:
                return []
            created = as_dict(answer, action).get("created")
            if created != len(rows):
                raise PlatformError(
                    f"{action}: the platform says that it stored {created} of "
                    f"{len(rows)}."
                )
            return rows
        raise AssertionError("the last try returns or raises")

    def delete(self, select_ids):
        """Deletes annotations.

        Args:
            select_ids: function that returns at most `MAX_DELETED` ids. It is called
                before each try.

        Returns:
            The ids of which the platform does not say that all are deleted: it has
            skipped those that were gone already, or did not do it.
        """
        ids = []

        def make_body():
            ids[:] = select_ids()
            return {"ids": ids} if ids else None

        action = f"project '{self._name}': cannot remove boxes of an earlier run"
        path = f"{self._path}/annotations/batch-delete"
        answer = self._api.post(path, make_body, action, is_repeatable=True)
        if answer is None or as_dict(answer, action).get("deleted") == len(ids):
            return []
        return ids

    def add_tags(self, asset_ids, tags):
        """Adds tags to images.

        Args:
            asset_ids: list of at most `MAX_ROWS` ids.
            tags: list of texts.

        Returns:
            The ids of the images that do not have all of these tags now.
        """
        action = f"project '{self._name}': cannot add the tags {', '.join(tags)}"
        body = {"asset_ids": asset_ids, "tags_add": tags}
        path = f"{self._path}/assets/batch-update-tags"
        answer = as_dict(
            self._api.post(path, lambda: body, action, is_repeatable=True), action
        )
        if answer.get("updated") == len(asset_ids):
            return []
        # It skips images that have the tags already.
        return [each for each in asset_ids if not set(tags) <= self._read_tags(each)]

    def _read_tags(self, asset_id):
        action = f"project '{self._name}': cannot read the tags of an image"
        state = self._api.get(f"{self._path}/assets/{asset_id}", action)
        return set(as_dict(state, action).get("tags") or ())

    def _are_stored(self, rows):
        ids = list({row["asset_id"] for row in rows})
        stored = set()
        for first in range(0, len(ids), MAX_ASSETS):
            part = self.read_annotations(ids[first : first + MAX_ASSETS])
            stored |= {annotation.get("id") for annotation in part}
        return {row["id"] for row in rows} <= stored

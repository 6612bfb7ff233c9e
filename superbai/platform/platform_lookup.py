"""Finds projects and versions of Superb AI's new platform by their names or ids."""

import uuid
from contextlib import suppress

from yolov3_tf2.errors import InputError, list_first
from yolov3_tf2.files.json_values import as_dict
from yolov3_tf2.names import normalise_name


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


def find_version(api, project, name):
    """Returns a version as the platform describes it, a dict.

    Args:
        api: a `platform_api.PlatformApi`.
        project: the project as the platform describes it.
        name: its name or its id; empty for the newest that is ready.

    Raises:
        InputError: there is none, or it is not ready.
    """
    where = f"project '{project['name']}'"
    path, action = f"/projects/{project['id']}/versions", f"{where}: cannot read it"
    versions = list(api.pages(path, action))
    listed = list_first(
        [f"{v.get('name')} ({v.get('status')})" for v in versions], ", "
    )
    if name:
        wanted = normalise_name(name).casefold()
        found = [
            version
            for version in versions
            if (is_id(name) and version.get("id") == name.strip().lower())
            or normalise_name(str(version.get("name"))).casefold() == wanted
        ]
    else:
        ready = [version for version in versions if version.get("status") == "ready"]
        found = sorted(ready, key=lambda v: str(v.get("created_at")))[-1:]
    if name and len(found) > 1:
        ids = ", ".join(str(version.get("id")) for version in found)
        raise InputError(
            f"{where}: it has {len(found)} versions '{name}'; give the id of one "
            f"instead: {ids}."
        )
    if not found:
        what = f"version '{name}'" if name else "version that is ready"
        raise InputError(
            f"{where}: it has no {what}; it has: {listed or 'none'}. Make a version on "
            "the platform first: it freezes the images with their labels."
        )
    version = as_dict(api.get(f"{path}/{found[0]['id']}", action), where)
    if version.get("status") != "ready":
        reason = f" ({version['error']})" if version.get("error") else ""
        raise InputError(
            f"{where}: version '{version.get('name')}' is {version.get('status')}"
            f"{reason}; expected one that is ready. Wait, or make another one."
        )
    return version


def is_id(text):
    """Whether a text is an id of the platform, a UUID with dashes."""
    with suppress(ValueError):
        return str(uuid.UUID(text.strip())) == text.strip().lower()
    return False

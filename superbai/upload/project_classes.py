"""The classes of a project: which of them are bounding boxes, and their ids."""

from collections import Counter

from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_name


class ProjectClasses:
    """The classes of a project. Names are compared in the form of `normalise_name`.

    Attributes:
        box_ids: dict from the name of a bounding-box class to its id.
        suite_names: dict from the name of a bounding-box class to its spelling in the
            Suite.
    """

    def __init__(self, interface, project_name, *, by_name_only):
        """Reads the classes.

        Args:
            interface: the project's label interface, a dict as the Suite has it.
            project_name: for messages.
            by_name_only: whether the SDK cannot tell a box class from another class of
                the same name, as spb-cli.

        Raises:
            InputError: the project is not an image project with boxes.
        """
        self._project_name, self._by_name_only = project_name, by_name_only
        project_type = interface.get("type", "image-default")
        if project_type != "image-siesta":
            raise InputError(
                f"project '{project_name}': expected the type image-siesta, got "
                f"{project_type}; boxes can only be sent to image projects, and not to "
                "those created before 2021."
            )
        classes = (interface.get("object_detection") or {}).get("object_classes")
        if classes is None:
            only_classifies = bool(interface.get("categorization"))
            raise InputError(
                f"project '{project_name}': expected bounding-box classes, but it "
                + (
                    "only classifies whole images"
                    if only_classifies
                    else "has no object detection"
                )
                + "; add a bounding-box class in the Suite, or use another project."
            )
        boxes = [c for c in classes if c["annotation_type"] == "box"]
        self.box_ids = {normalise_name(c["name"]): c["id"] for c in boxes}
        self.suite_names = {normalise_name(c["name"]): c["name"] for c in boxes}
        self._types = {normalise_name(c["name"]): c["annotation_type"] for c in classes}
        self._names_and_types = {(c["name"], c["annotation_type"]) for c in classes}
        self._spellings = {(normalise_name(n), t): n for n, t in self._names_and_types}
        counts = Counter(
            normalise_name(c["name"]) for c in (classes if by_name_only else boxes)
        )
        self._ambiguous = {name for name, count in counts.items() if count > 1}

    def check_boxes(self, names):
        """Checks that boxes of these classes can be sent.

        Raises:
            InputError: a class is not a bounding-box class, or there are several of
                its name.
        """
        names = set(names)
        unknown = sorted(names - set(self.box_ids))
        if unknown:
            others = sorted({kind for _, kind in self._names_and_types} - {"box"})
            described = [
                f"{name} ({self._types[name]})" if name in self._types else name
                for name in unknown
            ]
            raise InputError(
                f"project '{self._project_name}': the annotations have classes that "
                f"are not bounding-box classes of the project: {', '.join(described)}; "
                f"the project has: {', '.join(sorted(self.box_ids)) or 'none'}"
                + f" (only {' and '.join(others)})" * bool(others and not self.box_ids)
                + ". Add them there, or rename them there or in the annotations."
            )
        ambiguous = sorted(names & self._ambiguous)
        if ambiguous:
            raise InputError(
                f"project '{self._project_name}': several classes are named "
                f"{', '.join(ambiguous)}, and "
                f"{'spb-cli' if self._by_name_only else 'this step'} cannot tell them "
                "apart; rename all but one in the Suite"
                + ", or install superb-ai-label instead of spb-cli" * self._by_name_only
                + "."
            )

    def find_spelling(self, class_name, annotation_type):
        """Returns the project's spelling of a class of this type; None without one.

        Args:
            class_name: in any spelling, as an older label may have another one.
            annotation_type: its type.
        """
        if (class_name, annotation_type) in self._names_and_types:
            return class_name
        if not isinstance(class_name, str):
            return None
        return self._spellings.get((normalise_name(class_name), annotation_type))

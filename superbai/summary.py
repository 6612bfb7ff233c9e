"""The summary of a conversion: what was converted, as a table and as metadata."""

import re

_SINGULAR = {
    "annotations": "annotation",
    "boxes": "box",
    "categories": "category",
    "classes": "class",
    "entries": "entry",
    "files": "file",
    "images": "image",
    "labels": "label",
    "objects": "object",
    "splits": "split",
}
# What is counted comes first, after a word or two such as `labelled`.
_COUNTED = re.compile(rf"((?:\w+ ){{0,2}}?)({'|'.join(_SINGULAR)})\b(.*)", re.DOTALL)
_VERBS = {"that are": "that is", "which have": "which has"}


def format_table(counts, class_names):
    """Returns a table of images, boxes and boxes per class in each split, as text.

    Args:
        counts: dict from each split with images to a Counter of `images` and of boxes
            by ("box", label).
        class_names: list of strings.
    """
    rows = [
        ("images", [counts[split]["images"] for split in counts]),
        ("boxes", [num_boxes(counts[split]) for split in counts]),
        *(
            (f"  {name}", [counts[split]["box", label] for split in counts])
            for label, name in enumerate(class_names)
        ),
    ]
    width = max(len(name) for name, _ in rows) + 2
    header = " " * width + "".join(f"{split:>12}" for split in counts)
    return "\n".join(
        [
            header,
            *(
                f"{name:<{width}}" + "".join(f"{number:>12}" for number in numbers)
                for name, numbers in rows
            ),
        ]
    )


def num_boxes(count):
    """Returns the number of boxes of all classes in a Counter of a split."""
    return sum(number for key, number in count.items() if key != "images")


def list_notes(notes):
    """Yields kind, reason and number of what `superbai.notes.Notes` counted."""
    for kind, reasons in (
        ("left out", notes.left_out),
        ("changed", notes.changed),
        ("assumed", notes.assumed),
    ):
        for reason, number in reasons.items():
            yield kind, reason, number


def format_number(number, things):
    """Returns a number of things as text, in the singular if it is one.

    Things that occur once and are not counted, such as "project.json is missing", have
    no number.

    Example:
        >>> format_number(1, "labelled images that are missing")
        '1 labelled image that is missing'
        >>> format_number(2, "files other than images")
        '2 files other than images'
        >>> format_number(1, "project.json is missing")
        'project.json is missing'
    """
    counted = _COUNTED.fullmatch(things)
    if number != 1:
        return f"{number} {things}"
    if not counted:
        return things
    before, noun, after = counted.groups()
    for plural, singular in _VERBS.items():
        after = after.replace(plural, singular, 1)
    return f"1 {before}{_SINGULAR[noun]}{after}"


def format_examples(names, number):
    """Returns the first names of `number` things in brackets; nothing without any."""
    if not names:
        return ""
    return f" ({', '.join(names)}{', ...' if number > len(names) else ''})"


def metadata(counts, class_names, notes):
    """Returns the table and the notes as a dict of numbers."""
    return {
        **{f"images_{split}": counts[split]["images"] for split in counts},
        **{f"boxes_{split}": num_boxes(counts[split]) for split in counts},
        **{
            f"{split}/{name}": counts[split]["box", label]
            for split in counts
            for label, name in enumerate(class_names)
        },
        **{f"{kind}: {reason}": number for kind, reason, number in list_notes(notes)},
    }

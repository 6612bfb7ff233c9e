"""What the conversion of an export leaves out, changes and assumes."""

from collections import Counter
from dataclasses import dataclass, field

MAX_EXAMPLES = 10


@dataclass
class Notes:
    """What a conversion does not take over exactly as it is in the export.

    Attributes:
        left_out: Counter of what is not converted, by reason.
        changed: Counter of boxes that differ from what was drawn, and of images that
            differ from their files, by reason.
        assumed: Counter of what the export does not state and was assumed.
        examples: dict from some reasons to the first names that they are for.
        unreadable: list of (name, reason) of the images that cannot be used: their
            file or their label cannot be read.
        repeated: set of the used classes that share their name, see `label_json.Label`.
        far_outside: number of boxes that reach over the edge of their image by more
            than `pixel_boxes.TOLERANCE_PX`.
    """

    left_out: Counter = field(default_factory=Counter)
    changed: Counter = field(default_factory=Counter)
    assumed: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unreadable: list = field(default_factory=list)
    repeated: set = field(default_factory=set)
    far_outside: int = 0

    def leave_out(self, reason, name):
        """Counts something that is not converted, and keeps the first few names."""
        self.left_out[reason] += 1
        names = self.examples.setdefault(reason, [])
        if len(names) < MAX_EXAMPLES:
            names.append(name)

    def add(self, other):
        """Adds other notes."""
        self.left_out += other.left_out
        self.changed += other.changed
        self.assumed += other.assumed
        self.examples |= other.examples
        self.unreadable += other.unreadable
        self.repeated |= other.repeated
        self.far_outside += other.far_outside

"""What the conversion of an export leaves out, changes and assumes."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Notes:
    """What a conversion does not take over exactly as it is in the export.

    Attributes:
        left_out: Counter of what is not converted, by reason.
        changed: Counter of boxes that differ from what was drawn, by reason.
        assumed: Counter of what the export does not state and was assumed.
        unreadable: list of (name, reason) of the images that cannot be used: their
            file or their label cannot be read.
        repeated: set of the used classes that share their name, see `label_json.Label`.
        far_outside: number of boxes that reach over the edge of their image by more
            than `pixel_boxes.TOLERANCE_PX`.
    """

    left_out: Counter = field(default_factory=Counter)
    changed: Counter = field(default_factory=Counter)
    assumed: Counter = field(default_factory=Counter)
    unreadable: list = field(default_factory=list)
    repeated: set = field(default_factory=set)
    far_outside: int = 0

    def add(self, other):
        """Adds other notes."""
        self.left_out += other.left_out
        self.changed += other.changed
        self.assumed += other.assumed
        self.unreadable += other.unreadable
        self.repeated |= other.repeated
        self.far_outside += other.far_outside

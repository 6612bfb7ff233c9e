"""Means of losses over the images of an epoch."""


class Means:
    """Adds up the sums that steps return, and divides them by the number of images.

    Attributes:
        images: number of images so far.
        last: the sums of the last step, floats.
    """

    def __init__(self):
        self.images = 0.0
        self.last = {}
        self._sums = {}

    def add(self, sums):
        """Adds the sums of a step: a dict of scalars, `images` among them."""
        self.last = {name: float(value) for name, value in sums.items()}
        self.images += self.last["images"]
        for name, value in self.last.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def results(self):
        """Returns a dict of means per image; `unassigned` is a sum."""
        images = max(self.images, 1.0)
        return {
            name: value if name == "unassigned" else value / images
            for name, value in self._sums.items()
            if name != "images"
        }

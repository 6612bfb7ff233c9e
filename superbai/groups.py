"""Groups of images that are in one split together, such as the frames of a video."""

import hashlib
import re
from collections import Counter

import numpy as np

from yolov3_tf2.errors import InputError

# What `group_by` may be instead of a regular expression, as a pattern of names.
PATTERNS = {"image": r".*", "folder": r"(.*/|)", "dataset": r"([^/]*/|)"}


def check_pattern(group_by):
    """Checks a value of `group_by`.

    Raises:
        InputError: it is no regular expression.
    """
    try:
        re.compile(PATTERNS.get(group_by, group_by))
    except re.error as error:
        raise InputError(
            f"--group_by: expected {', '.join(PATTERNS)} or a regular expression, got "
            f"{group_by!r} ({error})."
        ) from error


def find_groups(names, group_by):
    """Returns the group of each name, a list of strings.

    Args:
        names: the `source_id` of images, `<dataset>/<data_key>`.
        group_by: `image`: each image is a group; `folder`: the images of a folder are;
            `dataset`: those of a dataset are; otherwise a regular expression that is
            searched in the name. What its first group matches, or all of it if it has
            none, is the group.

    Raises:
        InputError: a name does not match, or all are in one group.

    Example:
        >>> find_groups(["ds/v1_001.jpg", "ds/v1_002.jpg", "ds/v2_001.jpg"], r"/(.*)_")
        ['v1', 'v1', 'v2']
    """
    check_pattern(group_by)
    pattern = re.compile(PATTERNS.get(group_by, group_by))
    matches = [pattern.search(name) for name in names]
    found = [match and match[min(pattern.groups, 1)] for match in matches]
    unmatched = [n for n, group in zip(names, found, strict=True) if group is None]
    if unmatched:
        raise InputError(
            f"--group_by={group_by}: expected it to match the names of all images, got "
            f"{len(unmatched)} of {len(names)} that it does not match, such as "
            f"{unmatched[0]}."
        )
    if len(set(found)) == 1:
        raise InputError(
            f"--group_by={group_by}: all {len(names)} images are in one group, "
            f"'{found[0]}'; expected at least two, one for training and one for "
            f"testing. The names are like {names[0]}."
        )
    return found


def choose_test_items(items, test_fraction, group_by, count_boxes):
    """Chooses whole groups of items for testing, with about the same share of a class.

    Args:
        items: list of `export.Item`.
        test_fraction: wanted share of the images, and of the boxes of each class.
        group_by: see `find_groups`.
        count_boxes: a function from an item to a Counter of its labels.

    Returns:
        For each item whether it is for testing; and a sentence on it.
    """
    names = find_groups([item.source_id for item in items], group_by)
    amounts = {}
    for name, item in zip(names, items, strict=True):
        amount = amounts.setdefault(name, Counter())
        amount["images"] += 1
        amount.update(count_boxes(item))
    chosen = choose_groups(amounts, test_fraction)
    is_test = [name in chosen for name in names]
    return is_test, (
        f"{len(chosen)} of {len(amounts)} groups (group_by {group_by}) are for "
        f"testing, with {sum(is_test) / len(items):.0%} of the images (test_fraction "
        f"{test_fraction:.0%}); classes are balanced as far as the groups allow"
    )


def choose_groups(amounts, fraction):
    """Chooses groups that hold about a fraction of everything.

    It goes through the groups in the order of a hash of their names, and chooses each
    one that brings the chosen amounts closer to the wanted ones. So the choice does not
    depend on the order of the images, and a few more groups change few choices: none is
    taken back for a slightly better balance. Then a class that is in one part only,
    though several groups have it, gets a group in the other part, unless that would be
    far too large or small.

    Args:
        amounts: dict from group, at least two, to a Counter of what it holds: `images`,
            and boxes by label.
        fraction: above 0 and below 1.

    Returns:
        The set of the chosen groups; neither empty nor all of them.
    """
    groups = sorted(amounts, key=lambda name: hashlib.sha256(name.encode()).digest())
    kinds = ["images", *sorted({k for a in amounts.values() for k in a} - {"images"})]
    held = np.array([[amounts[g][k] for k in kinds] for g in groups], "float64")
    held = held[:, held.any(axis=0)]
    # Images count as much as all classes together.
    weights = np.ones(held.shape[1])
    weights[0] = max(held.shape[1] - 1, 1)
    wanted = fraction * held.sum(axis=0)

    def cost(sums):
        return (weights * ((sums - wanted) / wanted) ** 2).sum(axis=-1)

    is_chosen = _choose_in_order(held, cost)
    _fill_empty_part(is_chosen, held, cost)
    _spread_classes(is_chosen, held, cost, fraction)
    return {group for group, each in zip(groups, is_chosen, strict=True) if each}


def _choose_in_order(held, cost):
    """Returns for each group whether it brings the sums closer to the wanted ones."""
    is_chosen = np.zeros(len(held), bool)
    sums = np.zeros(held.shape[1])
    present_cost = cost(sums)
    for index, amount in enumerate(held):
        new_cost = cost(sums + amount)
        if new_cost < present_cost:
            is_chosen[index] = True
            sums, present_cost = sums + amount, new_cost
    return is_chosen


def _fill_empty_part(is_chosen, held, cost):
    """Moves the best group if all are in one part."""
    if is_chosen.all() or not is_chosen.any():
        sums = held[is_chosen].sum(axis=0)
        moved = np.where(is_chosen[:, None], sums - held, sums + held)
        best = cost(moved).argmin()
        is_chosen[best] = not is_chosen[best]


def _spread_classes(is_chosen, held, cost, fraction):
    """Moves a group for each class that one part lacks, if the parts stay usable.

    Another group goes back where that brings the sums closer to the wanted ones.
    """
    num_groups = (held > 0).sum(axis=0)
    limits = fraction / 2, min(2 * fraction, (1 + fraction) / 2)
    for kind in np.argsort(num_groups, kind="stable"):
        has_kind = held[:, kind] > 0
        for part in (False, True):
            if num_groups[kind] < 2 or (has_kind & (is_chosen == part)).any():
                continue
            costs = _costs_of_moves(is_chosen, held, cost, limits)
            costs[~has_kind] = np.inf
            moved = costs.argmin()
            if np.isinf(costs[moved]):
                continue
            is_chosen[moved] = part
            costs = _costs_of_moves(is_chosen, held, cost, limits)
            costs[is_chosen != part] = np.inf
            if costs.min() < cost(held[is_chosen].sum(axis=0)):
                is_chosen[costs.argmin()] = not part


def _costs_of_moves(is_chosen, held, cost, limits):
    """Returns the cost after the move of each group to the other part.

    It is infinite for the last group with a class in its part, and where the chosen
    share of the images would leave the limits.
    """
    sums = held[is_chosen].sum(axis=0)
    moved = np.where(is_chosen[:, None], sums - held, sums + held)
    share = moved[:, 0] / held[:, 0].sum()
    allowed = (share >= limits[0]) & (share <= limits[1])
    num_groups = (held > 0).sum(axis=0)
    for part in (False, True):
        in_part = is_chosen == part
        is_last = (held[in_part] > 0).sum(axis=0) == 1
        allowed &= ~(in_part & ((held > 0) & is_last & (num_groups > 1)).any(axis=1))
    return np.where(allowed, cost(moved), np.inf)

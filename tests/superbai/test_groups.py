"""Groups of images: their names, and which of them are for testing."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbai.groups import check_pattern, choose_groups, find_groups
from yolov3_tf2.errors import InputError

NAMES = ["a/x/1.jpg", "a/x/2.jpg", "a/y/3.jpg", "b/4.jpg", "5.jpg"]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("image", NAMES),
        ("folder", ["a/x/", "a/x/", "a/y/", "b/", ""]),
        ("dataset", ["a/", "a/", "a/", "b/", ""]),
        (r"(\d)\.jpg", ["1", "2", "3", "4", "5"]),
        (r"[ab5]", ["a", "a", "a", "b", "5"]),
    ],
)
def test_groups_of_names(group_by, expected):
    assert find_groups(NAMES, group_by) == expected


@pytest.mark.parametrize(
    ("group_by", "words"),
    [
        ("(", "--group_by: expected image, folder, dataset or a regular expression"),
        ("cam", "got 5 of 5 that it does not match, such as a/x/1.jpg"),
        ("(y)|a/x|b|5", "got 4 of 5 that it does not match, such as a/x/1.jpg"),
        ("jpg", "all 5 images are in one group, 'jpg'"),
    ],
)
def test_what_does_not_group_the_names_is_refused(group_by, words):
    with pytest.raises(InputError) as error:
        find_groups(NAMES, group_by)
    assert words in str(error.value)


def test_no_pattern_is_checked_as_none():
    check_pattern("")


def groups_of(*amounts):
    return {f"group {n}": Counter(amount) for n, amount in enumerate(amounts)}


def shares(amounts, chosen):
    """The chosen share of the images and of each class."""
    total, part = Counter(), Counter()
    for group, amount in amounts.items():
        total.update(amount)
        if group in chosen:
            part.update(amount)
    return {kind: part[kind] / total[kind] for kind in total if total[kind]}


def test_by_hand():
    # One small group is a tenth of the images; the large one is never part of it.
    amounts = groups_of({"images": 50, 0: 9}, *({"images": 10, 0: 3} for _ in range(5)))
    chosen = choose_groups(amounts, 0.1)
    assert len(chosen) == 1 and shares(amounts, chosen) == {"images": 0.1, 0: 3 / 24}
    assert len(choose_groups(amounts, 0.2)) == 2


def test_a_class_of_two_groups_is_in_both_parts():
    for seed in range(20):
        order = random.Random(seed)
        amounts = groups_of(*({"images": 10, 0: 30} for _ in range(20)))
        for group in order.sample(sorted(amounts), 2):
            amounts[group][1] = 1
        chosen = choose_groups(amounts, 0.2)
        assert shares(amounts, chosen)[1] == 0.5
        assert 0.1 <= shares(amounts, chosen)["images"] <= 0.4


def test_a_class_of_one_group_is_for_training():
    amounts = groups_of(*({"images": 10, 0: 10} for _ in range(20)))
    for group in amounts:
        assert group not in choose_groups(
            amounts | {group: Counter({"images": 10, 0: 10, 1: 5})}, 0.2
        )


def test_a_group_of_most_images_is_never_moved_for_a_rare_class():
    amounts = groups_of(
        {"images": 90, 0: 90, 1: 1}, *({"images": 1, 0: 1} for _ in range(9))
    )
    amounts["group 1"][1] = 1
    chosen = choose_groups(amounts, 0.1)
    assert "group 0" not in chosen and "group 1" in chosen


AMOUNTS = st.lists(
    st.fixed_dictionaries(
        {"images": st.integers(1, 9)},
        optional={label: st.integers(1, 20) for label in range(4)},
    ),
    min_size=2,
    max_size=9,
)


@given(AMOUNTS, st.floats(0.01, 0.9), st.randoms(use_true_random=False))
def test_neither_part_is_empty_and_the_order_makes_no_difference(lists, part, order):
    amounts = groups_of(*lists)
    chosen = choose_groups(amounts, part)
    assert chosen and chosen < amounts.keys()
    shuffled = order.sample(sorted(amounts), len(amounts))
    assert choose_groups({name: amounts[name] for name in shuffled}, part) == chosen


@given(AMOUNTS)
def test_the_share_of_images_is_near_the_best_possible(lists):
    amounts = groups_of(*({"images": each["images"]} for each in lists))
    found = shares(amounts, choose_groups(amounts, 0.3))["images"]
    subsets = (
        subset
        for size in range(1, len(amounts))
        for subset in itertools.combinations(amounts, size)
    )
    best = min(abs(shares(amounts, set(s))["images"] - 0.3) for s in subsets)
    largest = max(a["images"] for a in amounts.values())
    total = sum(a["images"] for a in amounts.values())
    assert abs(found - 0.3) <= best + largest / total


def random_groups(number, seed, start=0):
    """Groups of some ten images, each with a class that it has most of."""
    rng = np.random.default_rng(seed)
    amounts = {}
    for index in range(start, start + number):
        images = int(rng.integers(5, 15))
        numbers = rng.multinomial(3 * images, rng.dirichlet([0.5, 0.3, 0.2]))
        amounts[f"video {index}"] = Counter({"images": images})
        amounts[f"video {index}"].update(dict(enumerate(numbers.tolist())))
    return amounts


def test_classes_are_balanced_better_than_by_a_hash_of_the_groups():
    errors = {"chosen": [], "random": []}
    for seed in range(20):
        amounts = random_groups(40, seed)
        by_chance = random.Random(seed).sample(sorted(amounts), 8)
        for kind, chosen in (
            ("chosen", choose_groups(amounts, 0.2)),
            ("random", set(by_chance)),
        ):
            errors[kind].append(
                max(abs(s - 0.2) for s in shares(amounts, chosen).values())
            )
    assert np.mean(errors["chosen"]) < np.mean(errors["random"]) / 2


def test_a_few_more_groups_leave_most_choices_as_they_were():
    left = []
    for seed in range(20):
        amounts = random_groups(100, seed)
        before = choose_groups(amounts, 0.2)
        after = choose_groups(amounts | random_groups(5, seed + 100, 100), 0.2)
        left.append(len(before - after) / len(before))
    assert np.mean(left) < 0.1

"""Random projects whose names collide on purpose: no label gets a wrong image.

cd tests/superbai/matching
MATCHING_CASES=100000 python -m pytest -n0 test_matching_random.py

tries that many instead of 2,000 of each kind; with -s it says how they ended.
"""

import os
from collections import Counter
from types import SimpleNamespace

import pytest
import random_projects

CASES = int(os.environ.get("MATCHING_CASES", "2000"))


def match_many(find_by="path", only=None, **options):
    """Matches projects; returns a Counter of kinds of projects and of results."""
    results = Counter()
    for number in range(CASES):
        project = random_projects.make_project(number, **options)
        if only and not only(project):
            continue
        result, text = random_projects.check_project(project, find_by)
        given = "whole" if project.is_whole else "part"
        names = "clear" if project.is_plain else "misleading"
        results[given, names, result] += 1
        assert result != "wrong", f"project {number}: {text}"
        if project.is_whole and (project.is_clear or project.is_plain):
            assert result == "found", f"project {number}: {result}, {text}"
    print(f"\n{CASES} from 0, {find_by}, {options}:")
    for kind, count in sorted(results.items()):
        print(f"{count:7} {', '.join(kind)}")
    return results


def test_every_image_is_right_or_missing():
    results = match_many()
    shares = Counter()
    for (given, names, result), count in results.items():
        all_of_them = sum(
            n for kind, n in results.items() if kind[:2] == (given, names)
        )
        shares[given, names, result] = count / all_of_them
    # It does not only refuse: neither parts of archives, nor names with two meanings.
    assert shares["part", "clear", "refused"] < 0.3
    assert shares["part", "misleading", "refused"] < 0.6
    assert shares["whole", "clear", "found"] == 1
    assert shares["whole", "misleading", "found"] > 0.3


def test_images_without_labels_in_folders_of_datasets():
    results = match_many(unlabelled=0.4, only_dataset_folders=True)
    assert results["whole", "clear", "found"] > 0.3 * results.total()


def test_by_key_names_of_folders_mean_nothing():
    def has_clear_keys(project):
        keys = [random_projects.normal_identity(each)[1] for each in project.identities]
        return not project.named and project.is_whole and len(set(keys)) == len(keys)

    results = match_many("key", has_clear_keys)
    assert {result for _, _, result in results} == {"found"}
    assert results["whole", "misleading", "found"] > 0.02 * CASES


def test_a_wrong_image_would_be_noticed(monkeypatch):
    def match_by_name(identities, archives, needed, **_):
        entries = {
            name.rpartition("/")[2]: SimpleNamespace(archive=archive, name=name)
            for archive in archives
            for name in archive.files
        }
        names = {each: each[1].rpartition("/")[2] for each in identities}
        found = {n: entries.get(name) for n, name in names.items() if name in entries}
        return SimpleNamespace(entries=found, elsewhere={})

    monkeypatch.setattr(random_projects, "match_images", match_by_name)
    with pytest.raises(AssertionError, match="got /"):
        match_many()

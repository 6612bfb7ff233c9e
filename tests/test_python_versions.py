"""The README promises Python 3.11 to 3.13; CI has one of them."""

import ast
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from project import REPOSITORY

VERSIONS = ("3.11", "3.12", "3.13")
# Of the standard library of 3.11, but no longer of 3.12 or 3.13 (PEP 594 and others).
REMOVED = {
    *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt"),
    *("distutils", "imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib"),
    *("ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "uu"),
    "xdrlib",
}
SOURCES = [
    path
    for path in sorted(REPOSITORY.rglob("*.py"))
    if not {"venv", ".venv"} & set(path.relative_to(REPOSITORY).parts)
]


def test_the_readme_names_these_versions():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"Python {VERSIONS[0]}, {VERSIONS[1]} or {VERSIONS[2]}" in text
    first = (REPOSITORY / "requirements.txt").read_text().splitlines()[0]
    assert f"on Python {VERSIONS[0]} to {VERSIONS[-1]}." in first


def test_the_syntax_is_that_of_the_oldest():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        ast.parse(text, feature_version=(3, 11))
        # What a newer Python parses, and the oldest does not: PEP 695 and PEP 696.
        assert not re.search(r"^\s*type \w+(\[.*\])? = ", text, re.MULTILINE), path
        assert not re.search(r"^\s*(def|class) \w+\[", text, re.MULTILINE), path


def test_nothing_is_imported_that_newer_ones_lack():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] not in REMOVED, f"{path}: {name}"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_required_package_takes_them(version):
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name = Requirement(line.partition("  #")[0]).name
            allowed = metadata.metadata(name)["Requires-Python"] or ""
            assert SpecifierSet(allowed).contains(f"{version}.1"), name


def test_the_suites_sdk_is_chosen_for_each_version():
    lines = (REPOSITORY / "requirements" / "suite.txt").read_text().splitlines()
    found = [Requirement(line.partition("  #")[0]) for line in lines if line[0] != "#"]
    sdks = [r for r in found if r.name in ("spb-cli", "superb-ai-label")]
    for version in VERSIONS:
        chosen = [r for r in sdks if r.marker.evaluate({"python_version": version})]
        assert len(chosen) == 1, version

"""The credentials for the Suite: where they are, and whether they can be used."""

import configparser
import os
import re
from pathlib import Path
from typing import NamedTuple

from yolov3_tf2.errors import InputError

_KEY = "SPB_ACCESS_KEY"
# The SDK no longer reads the second name.
_TEAMS = ("SPB_TEAM_NAME", "SPB_ACCOUNT_NAME")
_PROFILE = "default"
# Keys have some forty characters. A very short one would be hidden in ordinary words.
_MIN_LENGTH, _MAX_LENGTH = 8, 1000


class Credentials(NamedTuple):
    """A team and its access key.

    Attributes:
        team, key: strings.
        source: where they come from, for messages.
    """

    team: str
    key: str
    source: str

    def __repr__(self):
        # That of a named tuple would show the key, perhaps as the team.
        return f"Credentials(source={self.source!r})"


def read_credentials():
    """Returns the `Credentials`.

    They are those of the environment variables; where none is set, those of the file
    that `spb configure` and `superb configure` write.

    Raises:
        InputError: there are none, or they cannot be sent. The message does not show
            them.
    """
    key = os.environ.get(_KEY, "").strip()
    team_name = next((n for n in _TEAMS if os.environ.get(n, "").strip()), _TEAMS[0])
    team = os.environ.get(team_name, "").strip()
    if not key and not team:
        found = _read_config()
        if found:
            return found
    missing = [name for name, value in ((_KEY, key), (team_name, team)) if not value]
    if missing:
        raise InputError(
            f"no credentials for the Suite: expected {' and '.join(missing)} among the "
            "environment variables, or the file ~/.spb/config of spb configure in "
            "place of both; the Suite shows both values under Settings, Access "
            "(earlier: My Page, Advanced). On Valohai, add them to the project's "
            "environment variables as secrets."
        )
    return Credentials(
        _check_team(team, team_name),
        check_key(key, _KEY),
        f"the environment variables {team_name} and {_KEY}",
    )


def _read_config():
    """Returns the `Credentials` of the SDK's file; None if it has none."""
    try:
        path = Path.home() / ".spb" / "config"
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return None  # A RuntimeError: there is no home folder.
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected text in UTF-8, as spb configure.") from None
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read_string(text)
    except configparser.Error as error:
        # Its text shows the line, which may hold the key.
        line = getattr(error, "lineno", None) or error.errors[0][0]
        raise InputError(
            f"{path}: line {line} cannot be read; expected lines like 'team_name = ...'"
            f" under [{_PROFILE}], as spb configure writes them; run it again."
        ) from None
    if not config.has_section(_PROFILE):
        return None
    profile = {name: value.strip() for name, value in config.items(_PROFILE)}
    names = [n for n in ("team_name", "account_name") if profile.get(n)]
    if not names or not profile.get("access_key"):
        raise InputError(
            f"{path}: expected team_name and access_key under [{_PROFILE}], got no "
            f"{'access_key' if names else 'team_name'}; run spb configure again."
        )
    return Credentials(
        _check_team(profile[names[0]], f"{path}: {names[0]}"),
        check_key(profile["access_key"], f"{path}: access_key"),
        f"{path}, profile {_PROFILE}",
    )


def check_key(key, name):
    """Returns a key if a header can hold it; raises an `InputError` otherwise."""
    if not _MIN_LENGTH <= len(key) <= _MAX_LENGTH:
        raise InputError(
            f"{name}: expected a key of {_MIN_LENGTH} to {_MAX_LENGTH} characters, got "
            f"{len(key)}; is it the whole key, and not the team's name?"
        )
    unfit = re.search(r"[^!-~]", key)
    if unfit:
        kind = "a control character" if not unfit[0].isprintable() else "a space"
        if not unfit[0].isascii():
            kind = "a character that is not ASCII"
        raise InputError(
            f"{name}: expected visible ASCII characters only, got {kind} as number "
            f"{unfit.start() + 1} of {len(key)}; was it copied with other text or a "
            "line break?"
        )
    return key


def _check_team(team, name):
    """Returns a team's name; raises an `InputError` if it cannot be one."""
    if len(team) > _MAX_LENGTH or not team.isprintable():
        raise InputError(
            f"{name}: expected the name of a team, got "
            + ("a control character in it." if len(team) <= _MAX_LENGTH else "a text.")
        )
    return team

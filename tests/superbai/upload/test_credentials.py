"""Where the credentials for the Suite come from, and which ones are refused."""

import pytest
from leaks import leaks

from superbai.upload.credentials import read_credentials
from yolov3_tf2.errors import InputError

KEY = "k3y-0f-a-team-0123456789"


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Sets the environment and the SDK's file; reads the credentials."""

    def read(config=None, **environment):
        for name in ("SPB_ACCESS_KEY", "SPB_TEAM_NAME", "SPB_ACCOUNT_NAME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(tmp_path))
        if config is not None:
            (tmp_path / ".spb").mkdir(exist_ok=True)
            data = config if isinstance(config, bytes) else config.encode()
            (tmp_path / ".spb" / "config").write_bytes(data)
        return read_credentials()

    return read


def test_the_environment_variables(use):
    found = use(SPB_TEAM_NAME=" 우리 팀 ", SPB_ACCESS_KEY=f"\t{KEY}\r\n")
    assert found[:2] == ("우리 팀", KEY)
    assert found.source == "the environment variables SPB_TEAM_NAME and SPB_ACCESS_KEY"
    assert not leaks(repr(found), KEY) and not leaks(str([found]), KEY)
    older = use(SPB_ACCOUNT_NAME="older", SPB_ACCESS_KEY=KEY)
    assert older.team == "older" and "SPB_ACCOUNT_NAME" in older.source


@pytest.mark.parametrize("team", ["team_name", "account_name"])
def test_the_file_of_the_sdk(use, tmp_path, team):
    text = f"[other]\naccess_key = x\n[default]\n{team} = 팀\naccess_key = {KEY}%\n"
    for config in (text, "\ufeff" + text.replace("\n", "\r\n")):
        found = use(config)
        assert found[:2] == ("팀", f"{KEY}%")
        assert found.source == f"{tmp_path / '.spb' / 'config'}, profile default"
    # The environment is before the file, and the two are never mixed.
    assert use(text, SPB_TEAM_NAME="a", SPB_ACCESS_KEY=KEY).team == "a"
    with pytest.raises(InputError, match="expected SPB_ACCESS_KEY among"):
        use(text, SPB_TEAM_NAME="a")


def test_no_credentials(use):
    for config in (None, "", "[other]\naccess_key = x\n"):
        with pytest.raises(InputError, match="SPB_ACCESS_KEY and SPB_TEAM_NAME among"):
            use(config, SPB_ACCESS_KEY=" ")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (f"access_key = {KEY}\n", "line 1 cannot be read"),
        (f"[default]\nteam_name = a\n{KEY}\n", "line 3 cannot be read"),
        (f"[default]\naccess_key = a\naccess_key = {KEY}\n", "line 3 cannot be read"),
        (f"[default]\naccess_key = {KEY}\n[default]\n", "line 3 cannot be read"),
        (f"[default]\naccess_key = {KEY}\n", "got no team_name; run spb configure"),
        ("[default]\nteam_name = a\n", "got no access_key; run spb configure"),
        (f"[default]\nteam_name = a\naccess_key = {KEY} {KEY}\n", "got a space as"),
        (f"[default]\nkey = {KEY}\xff".encode("latin-1"), "expected text in UTF-8"),
    ],
)
def test_a_damaged_file(use, config, message):
    with pytest.raises(InputError, match=message) as caught:
        use(config)
    text = str(caught.value)
    assert ".spb/config: " in text and "\n" not in text and not leaks(text, KEY)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (f"{KEY}\r{KEY}", "got a control character as number 25 of 49"),
        (f"{KEY}\n{KEY}", "got a control character"),
        (f"{KEY} {KEY}", "got a space as number 25 of 49"),
        (f"{KEY}é", "got a character that is not ASCII"),
        (f"\ufeff{KEY}", "got a character that is not ASCII as number 1"),
        ("abc", "expected a key of 8 to 1000 characters, got 3"),
        (KEY * 50, "expected a key of 8 to 1000 characters, got 1200"),
    ],
)
def test_a_key_that_no_header_can_hold(use, value, message):
    with pytest.raises(InputError, match=f"^SPB_ACCESS_KEY: .*{message}") as caught:
        use(SPB_TEAM_NAME="team", SPB_ACCESS_KEY=value)
    assert not leaks(str(caught.value), KEY) and "\n" not in str(caught.value)


def test_a_key_in_the_place_of_the_team(use):
    with pytest.raises(InputError, match="and not the team's name") as caught:
        use(SPB_TEAM_NAME=KEY, SPB_ACCESS_KEY="team")
    assert not leaks(str(caught.value), KEY)
    assert not leaks(repr(use(SPB_TEAM_NAME=KEY, SPB_ACCESS_KEY="our-team")), KEY)


def test_a_team_that_is_none(use):
    with pytest.raises(InputError, match="^SPB_TEAM_NAME: .* a control character"):
        use(SPB_TEAM_NAME="a\x07b", SPB_ACCESS_KEY=KEY)

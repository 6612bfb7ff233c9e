"""The credentials of the new platform, which no message may show in any form."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from platform_server import PlatformServer

from superbai.platform import platform_api, platform_credentials
from superbai.platform.platform_api import PlatformApi
from superbai.platform.platform_credentials import Credentials
from yolov3_tf2.errors import InputError

SECRET = "sbd_pk_a/b+c'd\\e==f"


@pytest.fixture
def environment(monkeypatch):
    def set_all(**values):
        names = ("SUPERB_AI_API_KEY", "SUPERB_AI_TENANT", "SUPERB_AI_BASE_URL")
        others = ("SPB_ACCESS_KEY", "SPB_TEAM_NAME", "SPB_ACCOUNT_NAME")
        for name in (*names, *others):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def forms(secret):
    """Yields the forms in which a message may show a secret, written independently."""
    yield from (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))
    for before in ("", "Bearer ", "acme:", "x"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode((before + secret).encode()).decode()


def test_credentials_are_stripped(environment):
    environment(SUPERB_AI_API_KEY=f" {SECRET}\r\n", SUPERB_AI_TENANT="acme\n")
    credentials = platform_credentials.read_credentials()
    url = "https://api.bdai.superb-ai.com"
    assert tuple(credentials) == (url, "acme", SECRET)
    assert all(form not in repr(credentials) for form in forms(SECRET))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SUPERB_AI_API_KEY", "", "expected SUPERB_AI_API_KEY among the environment"),
        ("SUPERB_AI_TENANT", " ", "expected SUPERB_AI_TENANT among the environment"),
        ("SUPERB_AI_API_KEY", "sbd_pk_a\rb", "got a control character as number 9 of"),
        ("SUPERB_AI_API_KEY", "sbd_pk_é", "that is not ASCII as number 8 of 8"),
        ("SUPERB_AI_TENANT", "../x", "of letters, digits, '-', '_' and '.', got"),
        ("SUPERB_AI_TENANT", "..", "of letters, digits, '-', '_' and '.', got"),
        ("SUPERB_AI_TENANT", "sbd_pk_abc", "are SUPERB_AI_API_KEY and SUPERB_AI_TEN"),
        ("SUPERB_AI_BASE_URL", "http://example.com", "https:// and a host, such as"),
        ("SUPERB_AI_BASE_URL", "https://a:b@example.com", "https:// and a host, such"),
        ("SUPERB_AI_BASE_URL", "https://example.com/?x=1", "https:// and a host, such"),
        ("SUPERB_AI_BASE_URL", "https://[::1", "https:// and a host, such as"),
        ("SUPERB_AI_BASE_URL", "https://x:99999999", "https:// and a host, such as"),
        ("SUPERB_AI_BASE_URL", "example.com", "https:// and a host, such as"),
    ],
)
def test_wrong_credentials_are_named_and_not_shown(environment, name, value, words):
    given = {"SUPERB_AI_API_KEY": SECRET, "SUPERB_AI_TENANT": "acme", name: value}
    environment(**given)
    with pytest.raises(InputError) as error:
        platform_credentials.read_credentials()
    assert words in str(error.value)
    assert all(form not in str(error.value) for form in forms(SECRET))
    assert value.strip() in ("", "..") or value not in str(error.value)


@pytest.mark.parametrize("address", ["https://x.example/api/", "http://127.0.0.1:80"])
def test_other_addresses(environment, address):
    environment(
        SUPERB_AI_API_KEY=SECRET, SUPERB_AI_TENANT="a", SUPERB_AI_BASE_URL=address
    )
    assert platform_credentials.read_credentials().base_url == address.rstrip("/")


def test_a_platform_that_repeats_the_key(monkeypatch):
    monkeypatch.setattr(platform_api, "RETRY_SECONDS", ())
    with PlatformServer(key=SECRET) as server:
        api = PlatformApi(Credentials(server.url, server.tenant, SECRET))
        for status in (400, 401, 500):
            for form in forms(SECRET):
                server.fail("projects", status, code=f"KEY_{form}")
                with pytest.raises(InputError) as error:
                    api.get("/projects", "cannot list")
                assert form not in str(error.value) and str(status) in str(error.value)


@pytest.mark.parametrize(
    ("choice", "names", "expected"),
    [
        ("auto", [], "suite"),
        ("auto", ["SPB_ACCESS_KEY", "SPB_TEAM_NAME"], "suite"),
        ("auto", ["SUPERB_AI_API_KEY"], "platform"),
        ("suite", ["SUPERB_AI_API_KEY", "SPB_TEAM_NAME"], "suite"),
        ("platform", ["SUPERB_AI_API_KEY", "SPB_TEAM_NAME"], "platform"),
    ],
)
def test_which_product(environment, choice, names, expected):
    environment(**dict.fromkeys(names, SECRET))
    assert platform_credentials.choose_product(choice) == expected


def test_both_products(environment):
    environment(SUPERB_AI_TENANT="acme", SPB_ACCESS_KEY=SECRET)
    with pytest.raises(InputError, match="set --product=suite or --product=platform"):
        platform_credentials.choose_product("auto")

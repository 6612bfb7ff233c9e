"""The credentials of Superb AI's new platform, and which product an upload goes to."""

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from superbai.upload.credentials import check_key
from yolov3_tf2.errors import InputError

KEY, TENANT, BASE_URL = "SUPERB_AI_API_KEY", "SUPERB_AI_TENANT", "SUPERB_AI_BASE_URL"
DEFAULT_BASE_URL = "https://api.bdai.superb-ai.com"
_SUITE_VARIABLES = ("SPB_ACCESS_KEY", "SPB_TEAM_NAME", "SPB_ACCOUNT_NAME")


class Credentials(NamedTuple):
    """What a request to the platform needs.

    Attributes:
        base_url: start of all addresses, without a slash at its end.
        tenant: the short name (slug) of the workspace.
        key: the API key; its text is in no `repr`.
    """

    base_url: str
    tenant: str
    key: str

    def __repr__(self):
        return f"Credentials({self.base_url!r})"


def choose_product(choice):
    """Returns the product that boxes are sent to, `suite` or `platform`.

    Args:
        choice: one of these two; or `auto`, to tell by the environment variables.

    Raises:
        InputError: `auto`, and the variables of both products are set.
    """
    if choice != "auto":
        return choice
    platform, suite = (
        [name for name in names if os.environ.get(name, "").strip()]
        for names in ((KEY, TENANT), _SUITE_VARIABLES)
    )
    if platform and suite:
        raise InputError(
            f"--product: expected the credentials of one product, got {suite[0]} of "
            f"the Suite and {platform[0]} of Superb AI's new platform; set "
            "--product=suite or --product=platform."
        )
    return "platform" if platform else "suite"


def read_credentials():
    """Reads the credentials from the environment variables.

    Surrounding white space, such as the line end of a file, is removed. No message
    shows a value, as variables are easily swapped.

    Returns:
        The `Credentials`.

    Raises:
        InputError: one is missing, or no header or address can hold it.
    """
    key, tenant, base_url = (
        os.environ.get(name, "").strip() for name in (KEY, TENANT, BASE_URL)
    )
    missing = [name for name, value in ((KEY, key), (TENANT, tenant)) if not value]
    if missing:
        raise InputError(
            "no credentials for Superb AI's new platform: expected "
            f"{' and '.join(missing)} among the environment variables, the API key "
            "(sbd_pk_…) and the short name of the workspace. On Valohai, add them to "
            "the project's environment variables, the key as a secret."
        )
    check_key(key, KEY)
    if not re.fullmatch(r"[\w.-]+", tenant, re.ASCII) or not tenant.strip("."):
        raise InputError(
            f"{TENANT}: expected the short name of the workspace, of letters, digits, "
            "'-', '_' and '.', got other characters; it is the part after /tenants/ "
            "in the platform's addresses."
        )
    if tenant.startswith("sbd_pk_"):
        raise InputError(
            f"{TENANT}: expected the short name of the workspace, got an API key; are "
            f"{KEY} and {TENANT} swapped?"
        )
    return Credentials(_check_base_url(base_url or DEFAULT_BASE_URL), tenant, key)


def _check_base_url(address):
    """Returns an address without the slashes at its end; see `read_credentials`."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    # Without encryption everybody on the way could read the key.
    is_safe = host and (
        parts.scheme == "https"
        or (parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1"))
    )
    has_more = host and (
        parts.username is not None or parts.query or parts.fragment or " " in address
    )
    if not is_safe or has_more or not address.isascii() or not address.isprintable():
        raise InputError(
            f"{BASE_URL}: expected the start of an address, https:// and a host, such "
            f"as {DEFAULT_BASE_URL}; leave it out for that one."
        )
    return address.rstrip("/")

"""What the failures of the Suite, its SDK and the network mean, in words.

`read_failure` says of an exception whether it is one of them, what has happened, and
whether the next try may succeed.
"""

import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from yolov3_tf2.errors import InputError

# Characters of an answer that are looked at for a message.
_MAX_READ = 4000
# How often a call is tried again, see `sdk.Sdk.call`.
NEVER, FEW_TIMES, ALL_TIMES = "never", "few", "all"

# Names of the SDK's exceptions that no retry helps against.
_CREDENTIALS = (
    "UnauthorizedException",
    "ForbiddenException",
    "AuthenticateFailedException",
    "SDKInitiationFailedException",
)
_FINAL = {
    "BadRequestException": "the Suite says that the request is wrong (400)",
    "NotFoundException": "the Suite says that it does not exist (404)",
    "PreConditionException": "the Suite says that a condition is not met (428)",
    "ParameterException": "",
    "NotSupportedException": "",
    "AttributeTypeException": "",
}
# What the SDK raises when it does not understand an answer.
UNEXPECTED = (AttributeError, KeyError, TypeError, IndexError, ValueError)


class SuiteError(InputError):
    """The Suite or its SDK failed."""


class ConflictError(SuiteError):
    """The Suite already has an image of this dataset and key."""


class NotFoundError(SuiteError):
    """The Suite does not have what was asked for."""


class MissingBytesError(InputError):
    """The Suite has an image's names, but not its bytes."""


class UnsentBytesError(MissingBytesError, SuiteError):
    """The bytes of an image that the Suite has just registered were not sent."""


class RefusedError(InputError):
    """The Suite refuses the credentials or fails every time: the upload must stop."""


class RedirectError(requests.RequestException):
    """An address of the Suite leads to another one, to which no key may be sent."""


class Failure(NamedTuple):
    """What a failed call means.

    Attributes:
        text: what has happened, and its likely cause.
        retries: `NEVER`, `FEW_TIMES` or `ALL_TIMES`.
        error: the class of the exception to raise.
        wait: seconds after which the Suite asks to try again; None if it does not say.
    """

    text: str
    retries: str = NEVER
    error: type = SuiteError
    wait: float | None = None


def read_failure(error, answer, redact=str):
    """Returns the `Failure` behind an exception of the SDK or of requests.

    Args:
        error: the exception.
        answer: the `requests.Response` that came last in this thread, or None: the SDK
            hides some of them.
        redact: function that returns a text without secrets; for what is cut, as the
            start of a key would not be recognised later.
    """
    name, cause = type(error).__name__, _request_error(error)
    if name in _CREDENTIALS:
        return Failure(
            f"the Suite refuses the credentials ({name}); check that the key and "
            "the team are right and not swapped, and that the key may write",
            error=RefusedError,
        )
    if name == "ConflictException":
        return Failure("it already exists", error=ConflictError)
    if name == "NotFoundException":
        return Failure(_FINAL[name], error=NotFoundError)
    if _FINAL.get(name):
        return Failure(_FINAL[name])
    if name == "APILimitExceededException":
        return _limited(answer)
    # Of requests without an answer the exception knows more.
    if isinstance(cause, requests.RequestException):
        if cause.response is not None:
            return _read_status(cause)
        return _read_connection(cause, answer, redact)
    message = _graphql_message(answer, redact)
    is_unknown = isinstance(error, UNEXPECTED) or isinstance(cause, UNEXPECTED)
    if message is not None and is_unknown:
        # The SDK looks for a code in each error, and some have none.
        is_missing = any(words in message.lower() for words in ("not found", "exist"))
        return Failure(
            f"the Suite answers with the error '{message}'",
            error=NotFoundError if is_missing else SuiteError,
        )
    text = f"{type(cause).__name__}: {cause}"
    if is_unknown or name in _FINAL or not hasattr(error, "code"):
        return Failure(f"the SDK cannot read the Suite's answer: {text}")
    return Failure(f"the Suite fails: {text}", ALL_TIMES)


def _read_status(error):
    """Returns the `Failure` of an answer whose status says that it failed."""
    response = error.response
    status, host = response.status_code, _host(error)
    if status == 407:
        return _proxy_login(host)
    if status == 429:
        return _limited(response)
    wait = retry_after(response)
    if status >= 500 or status == 408:
        return Failure(f"{host} fails at the moment ({error})", ALL_TIMES, wait=wait)
    # For example 403 for an expired address; the next try gets a new address.
    return Failure(f"{host} refuses it ({error})", FEW_TIMES, wait=wait)


def _read_connection(error, answer, redact):
    """Returns the `Failure` of a request without a usable answer."""
    host, text = _host(error), str(error)
    if isinstance(error, requests.exceptions.InvalidProxyURL):
        return Failure("HTTP_PROXY or HTTPS_PROXY is not an address")
    if isinstance(error, requests.exceptions.ProxyError):
        if "407" in text:
            return _proxy_login(host)
        return Failure(
            f"the proxy on the way to {host} cannot be used ({text}); check "
            "HTTPS_PROXY, and NO_PROXY for hosts without one",
            FEW_TIMES,
        )
    if isinstance(error, requests.exceptions.SSLError):
        return Failure(
            f"the certificate of {host} cannot be trusted ({text}); if a proxy of your "
            "network replaces certificates, set REQUESTS_CA_BUNDLE to its own; check "
            "the clock of this machine, too"
        )
    if isinstance(error, requests.Timeout):  # Each try already takes long.
        return Failure(f"{host} does not answer ({_named(error)})", FEW_TIMES)
    if isinstance(error, RedirectError):
        return Failure(text)
    if isinstance(error, requests.JSONDecodeError):
        return _not_json(answer, redact)
    if isinstance(error, ValueError):  # All that is wrong with an address.
        return Failure(f"SPB_APP_API_ENDPOINT is not an address ({_named(error)})")
    if "Connection refused" in text:
        return Failure(
            f"the connection to {host} is refused; is a firewall in the way, or is "
            "SPB_APP_API_ENDPOINT set to a wrong address?",
            FEW_TIMES,
        )
    if "NameResolution" in text or "getaddrinfo" in text or "Name or serv" in text:
        return Failure(
            f"the name {host} cannot be resolved; is this machine offline, or behind "
            "a proxy that HTTPS_PROXY must name?",
            FEW_TIMES,
        )
    return Failure(f"the connection to {host} breaks ({_named(error)})", ALL_TIMES)


def _proxy_login(host):
    return Failure(
        f"the proxy on the way to {host} asks for a login (407); put the name and the "
        "password into HTTPS_PROXY, or the host into NO_PROXY"
    )


def _limited(response):
    wait = retry_after(response)
    asked = f", and asks to wait {wait:.0f} seconds" if wait else ""
    text = f"the Suite gets too many requests (429){asked}"
    return Failure(text, ALL_TIMES, wait=wait)


def _not_json(answer, redact):
    """Returns the `Failure` of an answer that is not JSON."""
    text = answer.text[:_MAX_READ] if answer is not None else ""
    start = _shorten(redact(text), 60)
    is_page = start.lower().startswith(("<!doctype", "<html"))
    cause = "the login page of a network or a proxy" if is_page else "cut off"
    return Failure(
        f"the answer is not JSON but begins with '{start}'; is it {cause}?",
        FEW_TIMES,
    )


def _graphql_message(answer, redact):
    """Returns the message of a GraphQL error; None if the answer has none."""
    try:
        (error, *_) = answer.json()["errors"]
        return _shorten(redact(str(error["message"])[:_MAX_READ]), 200)
    except (AttributeError, *UNEXPECTED):
        return None


def _shorten(text, length):
    return " ".join(text.split())[:length]


def retry_after(response):
    """Returns the seconds that a response asks to wait; None if it does not.

    The header has a number or a date.
    """
    text = (response.headers.get("Retry-After") or "") if response is not None else ""
    try:
        return max(0.0, float(text)) if text.strip().isdigit() else _until(text)
    except (TypeError, ValueError, OverflowError):
        return None


def _until(date):
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())


def _request_error(error):
    """Returns the request's error behind an error: the SDK often hides it."""
    while error.__context__ and not isinstance(error, requests.RequestException):
        error = error.__context__
    return error


def _host(error):
    """Returns the host of an error's request, for messages."""
    address = getattr(getattr(error, "request", None), "url", None) or ""
    return urlsplit(address).netloc.rpartition("@")[2] or "the Suite"


def _named(error):
    return f"{type(error).__name__}: {error}"

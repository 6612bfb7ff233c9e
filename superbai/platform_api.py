"""The REST interface of the Superb Platform: requests, pages, errors and retries.

Written from the vendor's own Python client, superb-ai 0.4.0, which needs Python 3.12.
"""

import email.utils
import random
import threading
import time
from contextlib import suppress

import requests

from superbai.platform_credentials import redact
from superbai.sdk import RefusedError
from yolov3_tf2.errors import InputError, shorten

# Seconds before each retry of a temporary failure that does not say when to return.
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16)
# The longest wait that the platform may ask for.
MAX_WAIT_SECONDS = 300
# Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10, 60)
# Rows of a page; the platform gives at most 100 of most lists.
PAGE_ROWS = 100

_TEMPORARY = (408, 429, 500, 502, 503, 504)
# Limits that a few seconds do not lift, although their status is 429.
_CAPS = ("JOB_PER_TENANT_CAP", "RESOURCE_LIMIT_EXCEEDED")
_MEANINGS = {
    401: "the platform does not accept the key; check SUPERB_AI_API_KEY, of which each "
    "user has one at a time, and SUPERB_AI_TENANT",
    403: "the user of the key may not do this; sending boxes needs a manager of the "
    "project",
    404: "the platform does not have it",
    409: "its state does not allow this",
    410: "it is gone",
    413: "too much in one request",
    422: "the platform refuses what was sent",
    429: "too many requests; try again later",
}


class PlatformError(InputError):
    """The platform failed or refused a request.

    Attributes:
        status: of its answer; 0 without one.
        code: its name for the error; empty without one.
    """

    def __init__(self, message, status=0, code=""):
        super().__init__(message)
        self.status, self.code = status, code


class UnansweredError(PlatformError):
    """A request that must not be repeated blindly: it may have been executed."""


class PlatformApi:
    """The interface of one workspace; its methods may be called in several threads.

    Attributes:
        should_stop: function without arguments; once it returns true, failed requests
            are not repeated.
    """

    def __init__(self, credentials):
        """Stores the `platform_credentials.Credentials`; sends nothing."""
        self._key = credentials.key
        self._root = f"{credentials.base_url}/tenants/{credentials.tenant}"
        self._local = threading.local()
        self.should_stop = lambda: False

    def get(self, path, action, **params):
        """Returns the content of an answer, parsed.

        Args:
            path: below the workspace, with a slash in front.
            action: start of the error message: what failed.
            **params: of the query; a list is repeated.

        Raises:
            PlatformError: the platform failed or refuses.
            RefusedError: it refuses the key.
        """
        response = self._request("GET", self._root + path, action, params=params)
        return self._parse(response, action)

    def post(self, path, body, action, *, is_repeatable):
        """Sends an object and returns the content of the answer, parsed.

        Args:
            path, action: see `get`.
            body: a dict.
            is_repeatable: whether sending it twice does no harm.

        Raises:
            UnansweredError: it is not repeatable, and its answer was lost.
            PlatformError, RefusedError: see `get`.
        """
        response = self._request(
            "POST", self._root + path, action, is_repeatable=is_repeatable, json=body
        )
        return self._parse(response, action)

    def pages(self, path, action, *, limit=PAGE_ROWS, **params):
        """Yields the items of all pages of a list; see `get`."""
        seen = set()
        while True:
            page = self.get(path, action, limit=limit, **params)
            items = page.get("items") if isinstance(page, dict) else None
            if not isinstance(items, list):
                raise PlatformError(f"{action}: expected a list of items, got none.")
            yield from items
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            if cursor in seen:
                raise PlatformError(f"{action}: the platform repeats a page.")
            seen.add(cursor)
            params["cursor"] = cursor

    def fetch(self, address, action):
        """Returns the bytes behind a signed address.

        The key is not sent: the address holds its own permission, and its host is
        another one.

        Raises:
            PlatformError: they cannot be fetched; the message has no address.
        """
        return self._request("GET", address, action, is_signed=True).content

    @property
    def _session(self):
        """The session of this thread."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        return self._local.session

    def _request(
        self, method, address, action, *, is_repeatable=True, is_signed=False, **options
    ):
        """Returns a successful answer, of the second or a later try if necessary."""
        for wait in (*RETRY_SECONDS, None):
            response = None
            try:
                response = self._session.request(
                    method,
                    address,
                    # A function: `requests` prefers a password in ~/.netrc else.
                    auth=_no_credentials if is_signed else self._authorise,
                    timeout=TIMEOUT,
                    # Nobody else may get the key.
                    allow_redirects=is_signed,
                    **options,
                )
                _check_length(response)
            except requests.RequestException as error:
                failure = self._no_answer(error, action)
                may_be_done = not _is_unsent(error)
                is_temporary = not isinstance(error, requests.exceptions.SSLError)
            else:
                if response.ok and not response.is_redirect:
                    return response
                failure = self._describe(response, action, is_signed)
                is_temporary = _is_temporary(response.status_code, failure)
                may_be_done = response.status_code not in (429, 503)
            if is_temporary and may_be_done and not is_repeatable:
                raise UnansweredError(str(failure))
            if not is_temporary or wait is None or self.should_stop():
                raise failure
            self._wait(response, wait, failure)
        raise AssertionError("the last try returns or raises")

    def _authorise(self, request):
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _wait(self, response, wait, failure):
        """Waits before a retry, as long as the platform asks for.

        Raises:
            PlatformError: it asks for longer than `MAX_WAIT_SECONDS`.
        """
        seconds = _retry_after(response)
        if seconds is None:
            # A random wait, so that the threads do not all retry at the same time.
            seconds = wait * random.uniform(1, 1.5)
        if seconds > MAX_WAIT_SECONDS:
            raise type(failure)(
                f"{str(failure).rstrip('.')}; it asks to wait {seconds:.0f} s, so run "
                "again then.",
                failure.status,
                failure.code,
            )
        end = time.monotonic() + seconds
        while not self.should_stop() and time.monotonic() < end:
            time.sleep(min(0.1, seconds))

    def _no_answer(self, error, action):
        """Returns the error for a request without an answer."""
        reasons = {
            requests.exceptions.ProxyError: "the proxy refuses the connection",
            requests.exceptions.SSLError: "the certificate is not accepted; does a "
            "proxy decrypt connections, or is the clock wrong?",
            requests.exceptions.ConnectTimeout: "no connection in time",
            requests.Timeout: "no answer in time",
            requests.ConnectionError: "no connection, or it was cut off",
        }
        reason = next((t for c, t in reasons.items() if isinstance(error, c)), "")
        # Not the text of the error, which may contain a signed, secret address.
        reason = reason or f"no complete answer, {type(error).__name__}"
        return PlatformError(f"{action}: {reason}.")

    def _describe(self, response, action, is_signed):
        """Returns the error for an answer that is a failure."""
        status, content = response.status_code, None
        if is_signed:  # The storage answers in XML, with parts of the address.
            hint = ", as if the address had expired" if status == 403 else ""
            return PlatformError(
                f"{action}: the storage answers {status}{hint}.", status
            )
        with suppress(ValueError):
            content = response.json()
        code, text = _explain(content)
        meaning = _MEANINGS.get(status, "the platform failed")
        if response.is_redirect:
            meaning = "got a redirect; is SUPERB_AI_BASE_URL right?"
        details = " ".join(filter(None, (str(status), code, text)))
        message = f"{action}: {meaning} ({shorten(redact(details, self._key))})."
        if status in (401, 403):
            return RefusedError(message)
        return PlatformError(message, status, code)

    def _parse(self, response, action):
        try:
            return response.json()
        except ValueError:
            raise PlatformError(
                f"{action}: expected JSON, got something else; is SUPERB_AI_BASE_URL "
                "right, or does a proxy answer?"
            ) from None


def _no_credentials(request):
    return request


def _check_length(response):
    """Raises a `ConnectionError` if an answer is shorter than it says."""
    length = response.headers.get("Content-Length", "")
    is_encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    if length.isdigit() and not is_encoded and len(response.content) < int(length):
        raise requests.ConnectionError("incomplete")


def _is_unsent(error):
    """Tells whether a request has certainly not reached the platform."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    return "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)


def _is_temporary(status, failure):
    return status in _TEMPORARY and getattr(failure, "code", "") not in _CAPS


def _retry_after(response):
    """Returns the seconds that an answer asks to wait, None if it does not."""
    text = response.headers.get("Retry-After", "") if response is not None else ""
    with suppress(ValueError):
        return max(0.0, float(text))
    with suppress(ValueError, TypeError):
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    return None


def _explain(content):
    """Returns the code and the text of an error, from its parsed content."""
    if not isinstance(content, dict):
        return "", ""
    error = content.get("error")
    if not isinstance(error, dict):
        return "", _list_fields(content.get("detail"))
    details = error.get("details")
    if isinstance(details, dict):
        details = details.get("errors")
    texts = (error.get("message"), error.get("hint"), _list_fields(details))
    request_id = error.get("request_id")
    parts = [str(text) for text in texts if text]
    parts += [f"request {request_id}"] if request_id else []
    return str(error.get("code") or ""), "; ".join(parts)


def _list_fields(errors):
    """Returns which fields of a request are wrong, and why; empty if unknown."""
    if not isinstance(errors, list):
        return ""
    texts = []
    for error in errors[:5]:
        if isinstance(error, dict):
            place = error.get("loc") or error.get("id") or error.get("index") or ""
            if isinstance(place, list):
                place = ".".join(str(part) for part in place if part != "body")
            reason = error.get("msg") or error.get("message") or error.get("type")
            texts.append(f"{place}: {reason}")
    return ", ".join(texts)

"""The SDK of the Superb AI Suite: credentials, errors and retries.

The SDK is spb-cli or superb-ai-label, whichever is installed; both have the same calls.
Neither checks every answer, times out, retries every temporary failure, or says which
image failed. `Sdk.call` does.
"""

import logging
import os
import random
import re
import threading
from importlib import import_module
from importlib.util import find_spec

import requests
from requests.adapters import HTTPAdapter

from yolov3_tf2.errors import InputError

PACKAGES = ("spb", "spb_label")
# Seconds before each retry of a temporary failure, in addition to the SDK's retries.
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16)
# Retries of a failure that is probably permanent, such as an expired address.
FEW_RETRIES = 2
# Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10, 60)

# Names of the SDK's exceptions that no retry helps against.
_CREDENTIALS = (
    "UnauthorizedException",
    "ForbiddenException",
    "AuthenticateFailedException",
    "SDKInitiationFailedException",
)
_FINAL = (
    "BadRequestException",
    "NotFoundException",
    "ConflictException",
    "PreConditionException",
    "ParameterException",
    "NotSupportedException",
    "AttributeTypeException",
)
# What the SDK raises when it does not understand an answer.
_UNEXPECTED = (AttributeError, KeyError, TypeError, IndexError, ValueError)


class SuiteError(InputError):
    """The Suite or its SDK failed."""


class ConflictError(SuiteError):
    """The Suite already has an image of this dataset and key."""


class RefusedError(InputError):
    """The Suite refuses the credentials or fails every time: the upload must stop."""


class Sdk:
    """The installed SDK, with the credentials from the environment.

    Attributes:
        package: name of the SDK's package, `spb` or `spb_label`.
        module: the imported package.
        team: name of the team.
        stopped: a `threading.Event`; once it is set, failed calls are not repeated.
    """

    def __init__(self):
        """Reads the credentials and imports the SDK.

        Raises:
            InputError: the credentials or the SDK are missing.
        """
        self.stopped = threading.Event()
        self.team, self._key = _read_credentials()
        self.package = next((name for name in PACKAGES if find_spec(name)), None)
        if self.package is None:
            raise InputError(
                "the SDK of the Suite is not installed; run pip install -r "
                "requirements/suite.txt in a separate environment, or pip install "
                "superb-ai-label in this one."
            )
        # Its messages about retries contain signed addresses, which are secret.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # The SDK opens a client for Amazon S3, unused here, which fails at a wrong one.
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            os.environ.pop(name, None)
        self.module = import_module(self.package)
        self._errors = import_module(f"{self.package}.exceptions").CustomBaseException
        import_module(f"{self.package}.utils.utils").HTTPAdapter = _TimeoutAdapter

    def client(self, project):
        """Returns the SDK's client for a project."""
        return import_module(f"{self.package}.sdk").Client(
            project_name=project, team_name=self.team, access_key=self._key
        )

    def call(self, action, function, advice="try again later"):
        """Calls a function that uses the SDK; retries it after temporary failures.

        Args:
            action: first part of the error message.
            function: called without arguments.
            advice: last part of the error message.

        Returns:
            The result of the function.

        Raises:
            RefusedError: the Suite refuses the credentials.
            SuiteError: the Suite or its SDK failed.
            InputError: raised by the function.
        """
        num_retries = 0
        while True:
            try:
                return function()
            except InputError:
                raise
            except Exception as error:
                if not self._is_failure(error):
                    raise
                if num_retries >= self._max_retries(error):
                    # Not from the error, which contains signed, secret addresses.
                    raise self._readable_error(error, action, advice) from None
            # A random wait, so that the threads do not all retry at the same time.
            self.stopped.wait(RETRY_SECONDS[num_retries] * random.uniform(1, 1.5))
            num_retries += 1

    def _max_retries(self, error):
        """Returns how often to retry a call after this error."""
        is_final = type(error).__name__ in (*_CREDENTIALS, *_FINAL)
        if is_final or self._is_unreadable(error) or self.stopped.is_set():
            return 0
        if _is_probably_permanent(_cause(error)):
            return min(FEW_RETRIES, len(RETRY_SECONDS))
        return len(RETRY_SECONDS)

    def _readable_error(self, error, action, advice):
        """Returns the exception to raise for an error; see `call`."""
        name, cause = type(error).__name__, _cause(error)
        text = f"{type(cause).__name__}: {self._clean(str(cause))}"
        if name in _CREDENTIALS:
            return RefusedError(
                f"{action}: the Suite refuses the credentials ({text}); check "
                "SPB_ACCESS_KEY and SPB_TEAM_NAME, and whether the key may write."
            )
        if name == "ConflictException":
            return ConflictError(f"{action}: it already exists.")
        if self._is_unreadable(error):
            text = f"the SDK cannot read the Suite's answer: {text}"
        return SuiteError(f"{action} ({text}); {advice}.")

    def _is_failure(self, error):
        """Tells whether the SDK or a request failed, rather than this program."""
        known = (self._errors, requests.RequestException, *_UNEXPECTED)
        # The SDK's models raise plain Exception, its part phy_credit a subclass.
        is_bare = type(error) is Exception
        return (
            isinstance(error, known)
            or is_bare
            or type(error).__module__.startswith("phy_credit")
        )

    def _is_unreadable(self, error):
        """Tells whether the SDK received an answer that it does not understand."""
        cause = _cause(error)
        # A web page instead of JSON raises both kinds of errors, and is temporary.
        if isinstance(cause, requests.RequestException):
            return False
        return not isinstance(error, self._errors) or isinstance(cause, _UNEXPECTED)

    def _clean(self, text):
        """Returns an error's text without the key and the signatures of addresses."""
        # Some errors contain only the end of an address.
        text = re.sub(r"\?[^\s'\")]+", "", text)
        return text.replace(self._key, "…")[:300]


class _TimeoutAdapter(HTTPAdapter):
    """Sends the SDK's requests with a timeout.

    Without one, a dead connection would block the run forever. The SDK's own retries
    after a timeout are switched off, as `Sdk.call` retries.
    """

    def __init__(self, max_retries):
        super().__init__(max_retries=max_retries.new(read=False))

    def send(self, request, timeout=None, **options):
        return super().send(request, timeout=timeout or TIMEOUT, **options)


def _cause(error):
    """Returns the request's error behind an error: the SDK often hides it."""
    while error.__context__ and not isinstance(error, requests.RequestException):
        error = error.__context__
    return error


def _is_probably_permanent(cause):
    """Tells whether many retries are useless."""
    if isinstance(cause, requests.Timeout):  # Each try already takes long.
        return True
    response = getattr(cause, "response", None)
    # For example 403 for an expired address; the next try gets a new address.
    return (
        response is not None
        and 400 <= response.status_code < 500
        and response.status_code not in (408, 429)
    )


def _read_credentials():
    """Returns the name of the team and the access key."""
    key = os.environ.get("SPB_ACCESS_KEY")
    # The SDK no longer reads the older name.
    team = os.environ.get("SPB_TEAM_NAME") or os.environ.get("SPB_ACCOUNT_NAME")
    missing = [
        name
        for name, value in (("SPB_ACCESS_KEY", key), ("SPB_TEAM_NAME", team))
        if not value
    ]
    if missing:
        raise InputError(
            f"no credentials for the Suite: expected {' and '.join(missing)} among the "
            "environment variables; the Suite shows both under My Page, Advanced. On "
            "Valohai, add them to the project's environment variables as secrets."
        )
    return team, key

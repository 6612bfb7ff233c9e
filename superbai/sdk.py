"""The SDK of the Superb AI Suite: its credentials, its errors, and second tries.

The SDK is spb-cli, or superb-ai-label where that is the one installed; both have the
same calls. Neither looks at all answers, gives up on one that does not come, repeats
what fails for a moment, or says which picture it was: `Sdk.call` does.
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
# Seconds between the tries of what failed for a moment, beside the SDK's own tries;
# and how many of them for what hardly passes, such as an address that had expired.
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16)
SHORT_TRIES = 2
# Seconds until a connection stands, and between two signs of life on it.
TIMEOUT = (10, 60)

# By the names of the SDK's exceptions. No second try changes these.
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
# What the SDK raises where an answer has another form than it expects.
_UNEXPECTED = (AttributeError, KeyError, TypeError, IndexError, ValueError)


class SuiteError(InputError):
    """An action that the Suite, or its SDK, has failed at."""


class ConflictError(SuiteError):
    """A picture of this dataset and key is there already."""


class RefusedError(InputError):
    """The Suite refuses the credentials, or all else: nothing can be done."""


class Sdk:
    """The SDK that is installed, with the credentials of the environment.

    Attributes:
        package: its name, `spb` or `spb_label`.
        module: the module of this name.
        team: the name of the team.
        stopped: a `threading.Event`; once it is set, nothing is tried again.
    """

    def __init__(self):
        """Finds both.

        Raises:
            InputError: there are no credentials, or no SDK.
        """
        self.stopped = threading.Event()
        self.team, self._key = _credentials()
        self.package = next((name for name in PACKAGES if find_spec(name)), None)
        if self.package is None:
            raise InputError(
                "the Suite's SDK is not installed: pip install -r "
                "requirements/suite.txt, in an environment of its own, or pip install "
                "superb-ai-label beside the other requirements."
            )
        # Its notes of what it tries again hold the addresses that let anyone in.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # The SDK's client for Amazon's storage, of no use here, fails at a wrong one.
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            os.environ.pop(name, None)
        self.module = import_module(self.package)
        self._errors = import_module(f"{self.package}.exceptions").CustomBaseException
        import_module(f"{self.package}.utils.utils").HTTPAdapter = _Impatient

    def client(self, project):
        """Returns the SDK's client of a project."""
        return import_module(f"{self.package}.sdk").Client(
            project_name=project, team_name=self.team, access_key=self._key
        )

    def call(self, action, function, advice="try again later"):
        """Calls a function that uses the SDK; again, where it fails for a moment.

        Args:
            action: what to say where it fails.
            function: without arguments.
            advice: what to do about an error of no known kind.

        Returns:
            What the function returns.

        Raises:
            RefusedError: the credentials are refused.
            SuiteError: the Suite, or its SDK, has failed.
            InputError: the function has raised it.
        """
        waits, tries = list(RETRY_SECONDS), 0
        while True:
            try:
                return function()
            except InputError:
                raise
            except Exception as error:
                if not self._is_failure(error):
                    raise
                kind, cause = type(error).__name__, _cause(error)
                text = f"{type(cause).__name__}: {self._clean(str(cause))}"
                if kind in _CREDENTIALS:
                    raise RefusedError(
                        f"{action}: the Suite refuses the credentials ({text}); check "
                        "SPB_ACCESS_KEY and SPB_TEAM_NAME, and that the key may write."
                    ) from None
                if kind == "ConflictException":
                    raise ConflictError(f"{action}: it is there already.") from None
                is_unreadable = self._is_unreadable(error, cause)
                if kind in _FINAL or is_unreadable or self.stopped.is_set():
                    waits = []
                elif _hardly_passes(cause):
                    waits = waits[: max(SHORT_TRIES - tries, 0)]
                if not waits:
                    if is_unreadable:
                        text = f"the SDK cannot read the Suite's answer: {text}"
                    # Not from the error: it holds addresses that let anyone in.
                    raise SuiteError(f"{action} ({text}); {advice}.") from None
            tries += 1
            # Not all at the same moment again.
            self.stopped.wait(waits.pop(0) * random.uniform(1, 1.5))

    def _is_failure(self, error):
        """Tells an error of the SDK or of a request from a defect of this program."""
        known = (self._errors, requests.RequestException, *_UNEXPECTED)
        # The SDK's models raise Exception itself, its part phy_credit a child of it.
        is_bare = type(error) is Exception
        return (
            isinstance(error, known)
            or is_bare
            or type(error).__module__.startswith("phy_credit")
        )

    def _is_unreadable(self, error, cause):
        """Tells whether an answer has come, of a form that the SDK does not expect."""
        # A page in place of JSON is an error of both kinds, and may be gone next time.
        if isinstance(cause, requests.RequestException):
            return False
        return not isinstance(error, self._errors) or isinstance(cause, _UNEXPECTED)

    def _clean(self, text):
        """An error's text without secrets: the key, and what signs an address."""
        # Of addresses that have lost their beginning, too.
        text = re.sub(r"\?[^\s'\")]+", "", text)
        return text.replace(self._key, "…")[:300]


class _Impatient(HTTPAdapter):
    """What the SDK sends its requests through, which waits for ever by itself.

    Then a connection that has died in silence would hold the whole run. The SDK does
    not try again by itself either what was sent and not answered, `Sdk.call` does.
    """

    def __init__(self, max_retries):
        super().__init__(max_retries=max_retries.new(read=False))

    def send(self, request, timeout=None, **options):
        return super().send(request, timeout=timeout or TIMEOUT, **options)


def _cause(error):
    """The error behind an error: the SDK often says less than it was told."""
    while error.__context__ and not isinstance(error, requests.RequestException):
        error = error.__context__
    return error


def _hardly_passes(cause):
    """Tells whether more than a few tries are of no use."""
    if isinstance(cause, requests.Timeout):  # Each try takes so long already.
        return True
    response = getattr(cause, "response", None)
    # Such as the 403 of an address that had expired, and is asked for again.
    return (
        response is not None
        and 400 <= response.status_code < 500
        and response.status_code not in (408, 429)
    )


def _credentials():
    """Returns the team's name and the key."""
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
            f"no credentials of the Suite: expected {' and '.join(missing)} among the "
            "environment variables; the Suite shows both under My Page, Advanced. On "
            "Valohai add them to the project's or execution's environment, as secrets."
        )
    return team, key

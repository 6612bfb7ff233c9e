"""What an upload has done: the content of `upload.json`, and its lines in the log."""

from collections import Counter

from absl import logging

from superbai.upload import uploader

# In the order of the last log line.
RESULTS = ("created", "updated", "unchanged", "failed")
MAX_LOGGED_FAILURES = 10


def make_report(values, items, outcomes, stopped, redact):
    """Returns the content of `upload.json`, a dict.

    Args:
        values: the parameters.
        items: list of `upload_plan.Item`.
        outcomes: list of the `uploader.Outcome` of each; None if it is not done.
        stopped: why the upload ended early; an empty string if it did not.
        redact: function that returns a text without secrets.
    """
    done = [
        ({"dataset": item.dataset, "key": item.key}, outcome)
        for item, outcome in zip(items, outcomes, strict=True)
        if outcome
    ]
    counts = Counter(outcome.result for _, outcome in done)
    reasons = Counter(outcome.reason for _, outcome in done)
    report = {
        "project": values["project"],
        "dry_run": values["dry_run"],
        **{name: counts[name] for name in RESULTS},
        "reviewed": reasons[uploader.REVIEWED],
        "other_ids": reasons[uploader.OTHER_IDS],
        "stored_otherwise": reasons[uploader.STORED_OTHERWISE],
        "not_done": len(items) - len(done),
        "stopped": stopped,
        "decided_meanwhile": [
            names for names, outcome in done if outcome.was_decided_meanwhile
        ],
        "without_bytes": [names for names, outcome in done if outcome.lacks_bytes],
        "stacked": [
            {**names, "boxes": outcome.num_stacked}
            for names, outcome in done
            if outcome.num_stacked
        ],
        # A key of upload.json since its first version.
        "pictures": [
            {**names, "result": outcome.result, "reason": outcome.reason}
            for names, outcome in done
        ],
    }
    return _redact_all(report, redact)


def _redact_all(value, redact):
    """Returns a value of JSON with all its texts redacted."""
    if isinstance(value, dict):
        return {name: _redact_all(each, redact) for name, each in value.items()}
    if isinstance(value, list):
        return [_redact_all(each, redact) for each in value]
    return redact(value) if isinstance(value, str) else value


def log_report(report, reopening="set --status=WORKING or --replace=all"):
    """Logs the result of `make_report`.

    Args:
        report: a dict.
        reopening: what makes the step change labels that people have submitted.
    """
    failures = [
        row["reason"] for row in report["pictures"] if row["result"] == "failed"
    ]
    for reason in failures[:MAX_LOGGED_FAILURES]:
        logging.warning("failed: %s", reason)
    if len(failures) > MAX_LOGGED_FAILURES:
        more = len(failures) - MAX_LOGGED_FAILURES
        logging.warning("failed: %d more images, see upload.json", more)
    if report["reviewed"]:
        logging.info(
            "%d labels are already submitted or skipped, so their boxes were not "
            "changed; %s to change them",
            report["reviewed"],
            reopening,
        )
    _warn_of_leftovers(report)
    logging.info(
        "%sproject '%s': %s",
        "dry run, nothing was changed; " if report["dry_run"] else "",
        report["project"],
        ", ".join(f"{report[name]} {name}" for name in RESULTS),
    )


def _warn_of_leftovers(report):
    if report["without_bytes"]:
        logging.warning(
            "the Suite has the names of %d images but not their bytes; without_bytes "
            "in upload.json lists them, and the reasons there say what to do",
            len(report["without_bytes"]),
        )
    if report["other_ids"]:
        logging.warning(
            "the Suite has stored the boxes of %d labels under other ids, so later "
            "uploads take them for people's and keep them; --replace=all replaces them",
            report["other_ids"],
        )
    if report["decided_meanwhile"]:
        logging.warning(
            "%d labels were submitted or skipped while their boxes were written; look "
            "at them again, see decided_meanwhile in upload.json",
            len(report["decided_meanwhile"]),
        )
    if report["stored_otherwise"]:
        logging.warning(
            "the Suite has stored the boxes of %d labels with other numbers or "
            "properties than were sent, so later uploads take them for people's and "
            "keep them; --replace=all replaces them with all other objects",
            report["stored_otherwise"],
        )
    if report["stacked"]:
        logging.warning(
            "%d labels have boxes that lie on another of their class and are kept, as "
            "one of the two is people's, see stacked in upload.json; if it is of an "
            "earlier upload that was not recognised, --replace=all removes it with all "
            "other objects",
            len(report["stacked"]),
        )


def metadata(report):
    """Returns the numbers of a report for the step's metadata, a dict."""
    names = [*RESULTS, "reviewed", "not_done"]
    names += [
        name for name in ("other_ids", "stored_otherwise", "stopped") if report[name]
    ]
    lists = ("decided_meanwhile", "without_bytes", "stacked")
    return {
        **{name: report[name] for name in names},
        **{name: len(report[name]) for name in lists if report[name]},
    }

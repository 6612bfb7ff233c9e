"""The part of GraphQL that the Suite's SDKs use: parses a request, selects its fields.

Strings are parsed strictly, as the SDKs paste names into their queries.
"""

import json
import re

# The endpoint and the arguments of each operation; `?` marks optional arguments.
_OPERATIONS = {
    "createAsset": "/graphql file fileName fileSize dataset dataKey projectId",
    "labels": "/v2/graphql projectId id? tags? dataset? dataKey? page? pageSize?",
    "updateLabelInfo": "/v2/graphql projectId id result?",
    "updateLabels": "/v2/graphql projectId id workapp tags? result?",
    "updateLabelTags": "/v2/graphql projectId id tags?",
    "updateLabelStatus": "/v2/graphql projectId id status",
    "project": "/v3/graphql id? name?",
    "projects": "/v3/graphql page? pageSize? nameIcontains?",
}


class Refused(Exception):
    """A request that is answered with this status and content."""

    def __init__(self, status, content):
        super().__init__(status, content)
        self.answer = status, content


_STRING = r'"(?:[^"\\\x00-\x08\n-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"(?!")'
_LIST = rf"\[(?:{_STRING}|[\s,])*\]"
_ARGUMENT = re.compile(rf"[\s,]*(\w+)\s*:\s*(\$\w+|{_STRING}|\d+|null|{_LIST})[\s,]*")
_QUERY = re.compile(
    r"\s*(?P<kind>query|mutation)?\s*(?:\((?P<defined>[^()\"]*)\))?\s*"
    rf"\{{\s*(?P<name>\w+)\s*(?:\((?P<arguments>(?:{_STRING}|[^\"()])*)\))?\s*"
    r"(?P<fields>\{[\w\s,{}]*\})?\s*\}\s*"
)


def parse_operation(path, body):
    """Returns the name, the arguments and the requested fields of a request."""
    try:
        content = json.loads(body)
        query = _QUERY.fullmatch(content["query"])
    except (ValueError, KeyError, TypeError) as error:
        raise _bad_query("Must provide query string") from error
    if not query:
        raise _bad_query("Syntax Error")
    variables = content.get("variables") or {}
    name, text, at, values = query["name"], query["arguments"] or "", 0, {}
    endpoint, *arguments = _OPERATIONS.get(name, "").split() or [""]
    kind = "mutation" if name.startswith(("create", "update")) else "query"
    if path != endpoint or kind != (query["kind"] or "query"):
        raise _bad_query(f"Cannot query field {name}")
    defined = re.findall(r"\$\w+", query["defined"] or "")
    while at < len(text):
        match = _ARGUMENT.match(text, at)
        if not match:
            raise _bad_query(f"Syntax Error: {text[at:]}")
        argument, value = match.groups()
        if argument in values:
            raise _bad_query(f"There can be only one argument named {argument}")
        if value in defined:
            values[argument] = variables.get(value[1:])
        elif value.startswith("$"):
            raise _bad_query(f"Variable {value} is not defined")
        else:
            values[argument] = json.loads(value, strict=False)  # Tabs need no escape.
        at = match.end()
    for argument in values.keys() - {a.rstrip("?") for a in arguments}:
        raise _bad_query(f"Unknown argument {argument}")
    for argument in arguments:
        if not argument.endswith("?") and values.get(argument) is None:
            raise _bad_query(f"Argument {argument} is required")
    tokens = re.findall(r"\w+|[{}]", query["fields"] or "")
    return name, values, _take_fields(tokens[::-1]) if tokens else None


def _take_fields(tokens):
    """Removes the fields in braces from the end of a list of reversed tokens."""
    fields = {}
    tokens.pop()
    while tokens and tokens[-1] != "}":
        name = tokens.pop()
        fields[name] = _take_fields(tokens) if tokens and tokens[-1] == "{" else None
    if not tokens or "{" in fields:
        raise _bad_query("Syntax Error")
    tokens.pop()
    return fields


def select_fields(value, fields):
    """Returns the requested fields of a value, recursively."""
    if fields is None or value is None:
        return value
    if isinstance(value, list):
        return [select_fields(each, fields) for each in value]
    for name in fields.keys() - value.keys():
        raise _bad_query(f"Cannot query field {name}")
    return {name: select_fields(value[name], inner) for name, inner in fields.items()}


def errors(message, code=None):
    """Returns the status and the content of an answer with an error."""
    error = {"message": message}
    if code is not None:
        error["extensions"] = {"code": code}
    return 200, {"errors": [error], "data": None}


def _bad_query(message):
    # These have an HTTP status that says so, too.
    return Refused(400, errors(message, "GRAPHQL_VALIDATION_FAILED")[1])

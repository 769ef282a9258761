# SPDX-License-Identifier: Apache-2.0
"""All requests that the server takes, and their JSON. A new task is a file beside this one and a line here."""

from __future__ import annotations

import json
from dataclasses import asdict

from fedmote.errors import TaskError
from fedmote.tasks.evaluate import Evaluate
from fedmote.tasks.heavy_hitters import HeavyHitters
from fedmote.tasks.histogram import Histogram
from fedmote.tasks.quantiles import Quantiles
from fedmote.tasks.release import Release
from fedmote.tasks.rollback import RollBack

Request = Evaluate | Histogram | Quantiles | HeavyHitters | RollBack | Release

_KINDS: dict[str, type[Request]] = {
    kind.__name__: kind for kind in (Evaluate, Histogram, Quantiles, HeavyHitters, RollBack, Release)
}


def to_json(request: Request) -> str:
    """Return a request as JSON."""
    return json.dumps({"kind": type(request).__name__, **asdict(request)})


def from_json(text: str) -> Request:
    """Return the request whose JSON to_json() made. TaskError: the text is not a request."""
    try:
        fields = json.loads(text)
        if "shares" in fields:
            fields["shares"] = tuple(fields["shares"])
        return _KINDS[fields.pop("kind")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TaskError(f"not a request: {error}") from error

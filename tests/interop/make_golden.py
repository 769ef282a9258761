# SPDX-License-Identifier: Apache-2.0
"""Write golden messages: of what is not released yet, or, once, of a version.

    python tests/interop/make_golden.py [VERSION]

They go into tests/interop/golden/<version>/: messages as bytes, written by the C codec, the server's Python and flatc,
and fields.json, which tells what they say. What a released version wrote must be read for ever, so nothing there is
ever changed. Only `unreleased`, what is written without VERSION, is made anew; a release moves it to its version.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import flatc_judge as judge

GOLDEN = Path(__file__).resolve().parent / "golden"
UNRELEASED = "unreleased"


def plain(value: Any) -> Any:
    """Return a field's value as JSON can say it: bytes in hexadecimal, pairs as lists."""
    if isinstance(value, bytes):
        return value.hex()
    return (
        [list(item) for item in value] if isinstance(value, list) and value and isinstance(value[0], tuple) else value
    )


def messages() -> dict[str, tuple[bytes, judge.Said]]:
    """Return the messages and their fields, by file name."""
    out = {}
    for body in judge.bodies():
        for name, fields in judge.fillings(body).items():
            said = (body, fields)
            out[f"{body}-{name}-c.fmo"] = (judge.write_c(said), said)
            if name == "typical":
                out[f"{body}-{name}-python.fmo"] = (judge.write_python(said), said)
                out[f"{body}-{name}-flatc.fmo"] = (judge.write([said])[0], said)
    return out


def main() -> int:
    """Run the command line."""
    version = sys.argv[1] if len(sys.argv) > 1 else UNRELEASED
    folder = GOLDEN / version
    if version == UNRELEASED:
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        print(f"{folder} is there already, and golden messages are never changed", file=sys.stderr)
        return 1
    folder.mkdir(parents=True)
    told = {}
    for name, (message, (body, given)) in messages().items():
        (folder / name).write_bytes(message)
        fields = judge.defaults()[body] | given
        told[name] = {"body": body, "fields": {field: plain(value) for field, value in fields.items()}}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(said)}" for name, said in told.items())
    (folder / "fields.json").write_text(f"{{\n{lines}\n}}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""C files only call down, in the order that the internal headers list."""

from __future__ import annotations

from pathlib import Path

import pytest
from layers import calls_up, circles, listed

CSDK = Path(__file__).resolve().parents[2] / "csdk"
INCLUDES = [CSDK / "include", CSDK / "src", CSDK / "train"]
SOURCES = sorted([*CSDK.glob("src/*.c"), *CSDK.glob("train/*.c")])
HEADERS = sorted(header for header in CSDK.glob("src/*_internal.h") if listed(header))


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.name)
def test_files_only_call_down(header: Path, tmp_path: Path) -> None:
    assert calls_up(listed(header), SOURCES, INCLUDES, tmp_path) == []


def test_every_file_has_its_place() -> None:
    """A new file must be entered into the list of the header that it shares; the trainer has no order of its own."""
    placed = {name for header in HEADERS for name in listed(header)}
    assert placed == {source.name for source in CSDK.glob("src/*.c")}
    names = [header.name for header in HEADERS]
    assert names == ["fm_client_internal.h", "fm_mqtt_internal.h", "fm_serial_internal.h"]


def test_links_and_client_do_not_call_each_other(tmp_path: Path) -> None:
    """They meet in fm_link_api_t and fm_sink_t. What both use (CRC-32, COBS) is not theirs."""
    names = [name for header in HEADERS for name in listed(header)]
    mqtt, serial, client = (
        [name for name in names if name.startswith(prefix)]
        for prefix in (("fm_mqtt",), ("fm_serial",), ("fm_client", "fm_keep"))
    )
    assert len(mqtt) == 4 and len(serial) == 4 and len(client) == 10
    for above, below in ((mqtt, client), (serial, client), (mqtt, serial)):
        assert calls_up([*above, *below], SOURCES, INCLUDES, tmp_path) == []
        assert calls_up([*below, *above], SOURCES, INCLUDES, tmp_path) == []


def test_no_files_call_each_other_in_a_circle(tmp_path: Path) -> None:
    """This covers the trainer, too, and calls from one of the ordered lists to another."""
    assert circles(SOURCES, INCLUDES, tmp_path) == []


def test_a_call_up_is_found(tmp_path: Path) -> None:
    (tmp_path / "fm_top.c").write_text("void low(void);\nvoid top(void);\nvoid top(void) { low(); }\n")
    (tmp_path / "fm_low.c").write_text("void low(void);\nvoid top(void);\nvoid low(void) { top(); }\n")
    (tmp_path / "fm_x_internal.h").write_text(
        "/* Internal: two files.\n *\n * fm_top.c  above\n * fm_low.c  below\n */\n"
    )
    order = listed(tmp_path / "fm_x_internal.h")
    assert order == ["fm_top.c", "fm_low.c"]
    found = calls_up(order, sorted(tmp_path.glob("*.c")), [], tmp_path)
    assert found == ["fm_low.c calls top of fm_top.c"]
    assert set(circles(sorted(tmp_path.glob("*.c")), [], tmp_path)) == {"fm_top.c", "fm_low.c"}

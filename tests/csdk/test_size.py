# SPDX-License-Identifier: Apache-2.0
"""The tool behind `make size`: what it says of stack is so. The library has no warning and no unbounded stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import size
import stack

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "csdk" / "tools"

CHAIN = """
int sink(volatile char *bytes);
static int __attribute__((noinline)) leaf(int x) { volatile char local[100]; local[x] = 1; return local[0]; }
static int __attribute__((noinline)) small(int x) { volatile char local[20]; local[x] = 1; return local[0]; }
int entry(int x) { return leaf(x) + small(x) + 1; }
"""
RECURSION = """
static int __attribute__((noinline)) odd(int x);
static int __attribute__((noinline)) even(int x) { return (x == 0) ? 1 : odd(x - 1) + 3; }
static int __attribute__((noinline)) odd(int x) { return (x == 0) ? 0 : even(x - 1) + 5; }
int entry(int x) { return even(x) + 1; }
"""
INDIRECT = """
typedef struct { int (*run)(int x); } api_t;
static int __attribute__((noinline)) deep_run(int x) { volatile char local[200]; local[x] = 1; return local[0]; }
const api_t deep = {deep_run};
int entry(const api_t *api, int x) { return api->run(x) + 1; }
"""
VARIABLE = "int entry(int x) { volatile char local[x]; local[0] = 1; return local[0]; }"
OUTSIDE = "int strange(int x);\nint entry(int x) { return strange(x) + 1; }"


def graph(folder: Path, program: str, *indirect: tuple[str, str]) -> stack.Graph:
    """The call graph of a program of one file."""
    source = folder / "program.c"
    source.write_text(program)
    options = [*size.OPTIONS, "-fcallgraph-info=su", "-c", str(source), "-o", str(folder / "program.o")]
    subprocess.run(["arm-none-eabi-gcc", *options], check=True)
    return stack.Graph.read([folder / "program.ci"], list(indirect), size.APPLICATION)


def test_the_deepest_path_counts(tmp_path: Path) -> None:
    g = graph(tmp_path, CHAIN)
    taken, path = g.deepest("entry")
    leaf = next(f for f in g.frames if f.endswith(":leaf"))
    assert path == ["entry", "leaf"]
    assert taken == g.frames["entry"] + g.frames[leaf]
    assert 100 <= g.frames[leaf] < 140


def test_recursion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(stack.Unbounded, match="recursion"):
        graph(tmp_path, RECURSION).deepest("entry")


def test_a_call_through_a_pointer_needs_a_place_to_go(tmp_path: Path) -> None:
    with pytest.raises(stack.Unbounded, match=r"nothing says where entry calls through api->run"):
        graph(tmp_path, INDIRECT).deepest("entry")
    with pytest.raises(stack.Unbounded, match=r"there is no program\.c:no_run"):
        graph(tmp_path, INDIRECT, (r"api->(\w+)$", r"program.c:no_\1")).deepest("entry")
    taken, path = graph(tmp_path, INDIRECT, (r"api->(\w+)$", r"program.c:*_\1")).deepest("entry")
    assert path == ["entry", "deep_run"]
    assert taken >= 200
    alone, path = graph(tmp_path, INDIRECT, (r"api->run$", size.APPLICATION)).deepest("entry")
    assert path == ["entry"]
    assert alone < 40


def test_a_frame_of_variable_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(stack.Unbounded, match="frame of entry is dynamic"):
        graph(tmp_path, VARIABLE).deepest("entry")


def test_library_functions_take_what_is_allowed_for_them(tmp_path: Path) -> None:
    g = graph(tmp_path, OUTSIDE)
    assert g.deepest("entry") == (g.frames["entry"] + stack.LIBRARY_FRAME, ["entry", "strange"])


def test_the_library_compiles_without_warnings_and_its_stack_is_bounded() -> None:
    for warning in (
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wshadow",
        "-Wundef",
        "-Wstrict-prototypes",
        "-Werror",
        "-pedantic",
    ):
        assert warning in size.FLAGS
    report = size.measure("arm-none-eabi-gcc")
    assert report.faults == []
    assert all(part.ram == 0 for part in report.files.values())
    assert report.files.keys() >= {"fm_codec.c", "fm_client.c", "fm_mqtt.c", "fm_train.c"}
    # A sink, a link and an update's reader lie on the way: the table of calls through pointers was followed.
    assert report.stacks["client over MQTT"] >= report.stacks["client, with a link of one's own"] > 100
    assert {"codec", "MQTT link", "client over MQTT", "trainer"} <= report.stacks.keys()
    assert not [e for e in report.excesses if "stack" in e or "RAM" in e]


@pytest.mark.parametrize(("fault", "excess", "strict", "code"), [
    (False, False, True, 0), (False, True, False, 0), (False, True, True, 1), (True, False, False, 1),
])  # fmt: skip
def test_exit_code(
    fault: bool,
    excess: bool,
    strict: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = size.Report(faults=["a warning"] * fault, excesses=["too large"] * excess)
    monkeypatch.setattr(size, "measure", lambda cc: report)
    monkeypatch.setattr(sys, "argv", ["size.py", *(["--strict"] * strict)])
    assert size.main() == code
    out = capsys.readouterr().out
    assert ("WRONG: a warning" in out) == fault
    assert ("OVER BUDGET: too large" in out) == excess

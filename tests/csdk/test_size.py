# SPDX-License-Identifier: Apache-2.0
"""The tool behind `make size`: what it says of stack is so. The library has no warning and no unbounded stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import avr_calls
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
    options = [
        *size.BUDGETED.machine,
        *size.OPTIONS,
        "-fcallgraph-info=su",
        "-c",
        str(source),
        "-o",
        str(folder / "program.o"),
    ]
    subprocess.run(["arm-none-eabi-gcc", *options], check=True)
    return stack.Graph.read([folder / "program.ci"], list(indirect), size.APPLICATION)


def avr_graph(folder: Path, program: str, *indirect: tuple[str, str]) -> stack.Graph:
    """The same by the compiler that writes no call graph."""
    source = folder / "program.c"
    source.write_text(program)
    target = size.TARGETS["avr"]
    size.compile_file(target, source, folder / "program.o")
    return avr_calls.read([folder / "program.s"], list(indirect), size.APPLICATION)


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


AVR_CHAIN = """
int entry(int x);
static int __attribute__((noinline)) leaf(int x) { volatile char local[100]; local[x] = 1; return local[0]; }
static int __attribute__((noinline)) tail(int x) { volatile char local[60]; local[x] = 1; return local[0]; }
int entry(int x) { if (x > 3) { return tail(x); } return leaf(x) + 1; }
"""
AVR_INDIRECT = """
typedef struct { int (*run)(int x); } api_t;
extern const api_t deep;
int entry(const api_t *api, int x);
static int __attribute__((noinline)) deep_run(int x) { volatile char local[200]; local[x] = 1; return local[0]; }
const api_t deep = {deep_run};
int entry(const api_t *api, int x) {
  const int got =
      api->run(x);
  return got + 1;
}
"""
AVR_PUSHED = """
int many(long a, long b, long c, long d, long e, long f, long g);
int entry(void);
int entry(void) { return many(1, 2, 3, 4, 5, 6, 7) + 1; }
"""


def test_calls_in_assembly_are_followed(tmp_path: Path) -> None:
    g = avr_graph(tmp_path, AVR_CHAIN)
    assert g.calls["entry"] == {"program.c:leaf", "program.c:tail"}
    assert g.deepest("entry") == (g.frames["entry"] + g.frames["program.c:leaf"], ["entry", "leaf"])
    assert 100 <= g.frames["program.c:leaf"] < 140
    assert avr_graph(tmp_path, AVR_PUSHED).frames["entry"] >= 3 + 3 * 4  # beyond what registers take


def test_calls_through_pointers_in_assembly_need_a_place_to_go(tmp_path: Path) -> None:
    with pytest.raises(stack.Unbounded, match=r"nothing says where entry calls through const int got ="):
        avr_graph(tmp_path, AVR_INDIRECT).deepest("entry")
    taken, path = avr_graph(tmp_path, AVR_INDIRECT, (r"api->(\w+)$", r"program.c:*_\1")).deepest("entry")
    assert path == ["entry", "deep_run"]
    assert taken >= 200
    alone, path = avr_graph(tmp_path, AVR_INDIRECT, (r"api->run$", size.APPLICATION)).deepest("entry")
    assert path == ["entry"]
    assert alone < 40


def test_variables_in_ram_are_told_from_constants(tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text(
        "extern int initial; extern char blank[6]; extern const char fixed[10];\n"
        'int initial = 5; char blank[6]; const char fixed[10] = "constants";\n'
    )
    for target, expected in (("m0plus", (4 + 10, 4 + 6, 4 + 6)), ("avr", (2 + 10, 2 + 6 + 10, 2 + 6))):
        size.compile_file(size.TARGETS[target], source, tmp_path / "program.o")
        taken = size.object_size(size.TARGETS[target], tmp_path / "program.o")
        assert (taken.flash, taken.ram, taken.variables) == expected


@pytest.fixture(scope="module")
def reports() -> list[size.Report]:
    """What there is to say of all targets."""
    return [size.measure(target) for target in size.TARGETS.values()]


@pytest.mark.parametrize("number", range(len(size.TARGETS)), ids=list(size.TARGETS))
def test_the_library_compiles_without_warnings_and_its_stack_is_bounded(
    number: int, reports: list[size.Report]
) -> None:
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
    report = reports[number]
    assert report.faults == []
    assert all(part.variables == 0 for part in report.files.values())
    assert report.files.keys() >= {"fm_codec.c", "fm_client.c", "fm_mqtt.c", "fm_train.c", "fm_keep.c"}
    assert report.modules.keys() == size.MODULES.keys()
    assert report.structs.keys() == size.STRUCTS.keys()
    # A sink, a link and an update's reader lie on the way: the table of calls through pointers was followed.
    assert report.stacks["client over MQTT"] >= report.stacks["client, with your own link"] > 100
    assert report.stacks.keys() == size.ENTRIES.keys()


def test_the_budgets_of_ram_and_stack_are_kept(reports: list[size.Report]) -> None:
    report = reports[list(size.TARGETS).index("m0plus")]
    assert all(part.ram == 0 for part in report.files.values())
    assert not [e for e in report.excesses if "stack" in e or "RAM" in e]


def test_a_stack_over_its_budget_is_told() -> None:
    report = size.Report(size.BUDGETED, stacks={"codec": size.STACK_BUDGET + 1, "client over MQTT": size.STACK_BUDGET})
    size.compare_with_budgets(report)
    assert report.excesses == [f"codec: {size.STACK_BUDGET + 1} bytes of stack, budget {size.STACK_BUDGET}"]


def test_the_table_in_the_docs_is_the_tools(reports: list[size.Report]) -> None:
    """Rows and columns; the figures depend on the compilers' versions."""
    made = [line.split(" | ") for line in size.table(reports, markdown=True).splitlines()]
    shown = [line.split(" | ") for line in (ROOT / "docs/size.md").read_text().splitlines() if line.startswith("| ")]
    assert shown[:2] == made[:2]
    assert [line[0] for line in shown] == [line[0] for line in made]
    assert all(cell.strip(" |").isdigit() for line in made[2:] for cell in line[1:])


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
    report = size.Report(size.BUDGETED, faults=["a warning"] * fault, excesses=["too large"] * excess)
    monkeypatch.setattr(size, "measure", lambda target: report)
    monkeypatch.setattr(sys, "argv", ["size.py", "--target", "m0plus", *(["--strict"] * strict)])
    assert size.main() == code
    out = capsys.readouterr().out
    assert ("WRONG: a warning" in out) == fault
    assert ("OVER BUDGET: too large" in out) == excess

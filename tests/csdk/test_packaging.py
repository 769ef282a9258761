# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: each way of packaging is unpacked, built and run by the same few steps.
"""A project of each kind that takes the library is configured, built and run; what cannot be had here (Zephyr, ESP-IDF,
PlatformIO, Arduino) is represented by the functions and rules of theirs that the package relies on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import amalgamate
import kconfiglib
import pytest
import size
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSDK = ROOT / "csdk"
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # cmake and ninja are pip's
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
STRICT_CXX = ["c++", "-std=c++11", "-Wall", "-Wextra", "-Werror"]
STRICT = ["-std=c99", "-pedantic", *(f"-W{warning}" for warning in size.WARNINGS)]

# Uses core, link and trainer, and says what limits it was compiled with.
CONSUMER = """
#include <stdio.h>
#include "fedmote.h"
int main(void) {
  static fm_mqtt_t mqtt;
  const uint32_t widths[3] = {4u, 3u, 2u};
  uint8_t bytes[64];
  uint32_t size = 0u;
  fm_message_t out = {0}, in = {0};
  fm_link_t link;
  const fm_mqtt_config_t none = {0};
  out.type = FM_BODY_COMMIT;
  out.body.commit.round = 7u;
  const int ok = fm_message_encode(&out, bytes, sizeof bytes, &size) == FM_OK &&
                 fm_message_decode(bytes, size, size, &in) == FM_OK && in.body.commit.round == 7u &&
                 fm_mqtt_init(&mqtt, &none, &link) == FM_ERR_ARGUMENT && fm_train_parameters(widths, 2u) == 23u;
  (void)printf("%s %u.%u.%u tensors %d acks %d", ok ? "works" : "fails", FM_VERSION >> 16, (FM_VERSION >> 8) & 255u,
               FM_VERSION & 255u, FM_MAX_TENSORS, (int)(sizeof mqtt.acks / sizeof mqtt.acks[0]));
  return ok ? 0 : 1;
}
"""
LIMITS = "tensors 16 acks 8"
WORKS = f"works {VERSION} "
POSIX = '\n#include "fm_posix_tcp.h"\nfm_posix_tcp_t tcp;\n'


def first_group(match: re.Match[str] | None) -> str:
    """Return the first group of a match, which there must be."""
    assert match is not None
    return str(match[1])


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": TOOLS, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def project(folder: Path, lines: str, *options: str, posix: bool = False, program: str = "consumer") -> str:
    """Write a project whose CMakeLists.txt has these lines, build it, run its program."""
    folder.mkdir()
    (folder / "main.c").write_text(CONSUMER + (POSIX if posix else ""))
    text = f"cmake_minimum_required(VERSION 3.16)\nproject(consumer C)\n{lines}\n"
    (folder / "CMakeLists.txt").write_text(text)
    run("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", *options)
    run("cmake", "--build", folder / "build")
    return run(folder / "build" / program)


EXECUTABLE = "add_executable(consumer main.c)\ntarget_link_libraries(consumer PRIVATE {})"


def install(folder: Path, *options: str) -> Path:
    """Build the library and install it below a folder; return where."""
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder / "build", *options)
    run("cmake", "--build", folder / "build")
    run("cmake", "--install", folder / "build", "--prefix", folder / "prefix")
    return folder / "prefix"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is installed."""
    return install(tmp_path_factory.mktemp("install"))


def pkg_config(prefix: Path, *options: str) -> list[str]:
    """Options for the compiler, as a shell would take them."""
    folder = next(prefix.rglob("fedmote.pc")).parent
    text = run("pkg-config", *options, "fedmote", env={"PKG_CONFIG_PATH": str(folder)})
    return run("sh", "-c", f'for o in {text.strip()}; do echo "$o"; done').splitlines()


def test_find_package(prefix: Path, tmp_path: Path) -> None:
    lines = f"find_package(fedmote {VERSION} REQUIRED)\n" + EXECUTABLE.format("fedmote::fedmote")
    assert project(tmp_path / "p", lines, f"-DCMAKE_PREFIX_PATH={prefix}", posix=True) == WORKS + LIMITS


@pytest.mark.parametrize("wanted", ["0.0.9", "0.2", "1.0"])
def test_another_minor_version_is_not_found(wanted: str, prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(consumer C)\nfind_package(fedmote {wanted} REQUIRED)\n"
    )
    with pytest.raises(AssertionError, match="compatible with requested"):
        run("cmake", "-G", "Ninja", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")


def test_pkg_config(prefix: Path, tmp_path: Path) -> None:
    assert pkg_config(prefix, "--modversion") == [VERSION]
    (tmp_path / "main.c").write_text(CONSUMER + POSIX)
    options = pkg_config(prefix, "--cflags", "--libs")
    run("cc", "main.c", *options, "-o", "consumer", cwd=tmp_path)
    assert run(tmp_path / "consumer") == WORKS + LIMITS


def test_limits_of_the_installed_library_reach_those_who_use_it(tmp_path: Path) -> None:
    """Sizes of structs depend on them."""
    limits = tmp_path / "limits.h"
    limits.write_text("#define FM_MAX_TENSORS 5\n#define FM_MQTT_PENDING_ACKS 3\n")
    prefix = install(tmp_path, f'-DFEDMOTE_CONFIG_FILE="{limits}"')
    lines = "find_package(fedmote REQUIRED)\n" + EXECUTABLE.format("fedmote::fedmote")
    assert project(tmp_path / "p", lines, f"-DCMAKE_PREFIX_PATH={prefix}") == WORKS + "tensors 5 acks 3"
    run("cc", tmp_path / "p/main.c", *pkg_config(prefix, "--cflags", "--libs"), "-o", tmp_path / "consumer")
    assert run(tmp_path / "consumer") == WORKS + "tensors 5 acks 3"


def test_fetch_content(tmp_path: Path) -> None:
    lines = f'include(FetchContent)\nFetchContent_Declare(fedmote SOURCE_DIR "{ROOT}")\n'
    lines += "FetchContent_MakeAvailable(fedmote)\n" + EXECUTABLE.format("fedmote::fedmote")
    assert project(tmp_path / "p", lines, posix=True) == WORKS + LIMITS
    assert not list((tmp_path / "p/build").rglob("fedmote.pc"))  # its installation is the project's own matter


# ---- the single file ----


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with fedmote.c and fedmote.h, and the Arduino library below."""
    folder = tmp_path_factory.mktemp("single")
    run(sys.executable, CSDK / "tools/amalgamate.py", folder, "--arduino", folder / "arduino")
    return folder


COMPILERS = [["gcc"], ["clang"], *([target.cc, *target.machine] for target in size.TARGETS.values())]


@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_the_single_file_has_no_warnings(compiler: list[str], single: Path, tmp_path: Path) -> None:
    run(*compiler, *STRICT, "-Os", "-c", single / "fedmote.c", "-o", tmp_path / "fedmote.o")


def test_the_single_file_is_the_library(single: Path, tmp_path: Path) -> None:
    run("cc", *STRICT, "-O1", "-c", single / "fedmote.c", "-o", tmp_path / "fedmote.o")
    (tmp_path / "main.c").write_text(CONSUMER)
    run("cc", f"-I{single}", tmp_path / "main.c", tmp_path / "fedmote.o", "-o", tmp_path / "consumer")
    assert run(tmp_path / "consumer") == WORKS + LIMITS
    defined = run("nm", "--defined-only", "--extern-only", tmp_path / "fedmote.o")
    declared = set(re.findall(r"\b(fm_\w+)\(", "".join(f.read_text() for f in CSDK.glob("include/fedmote/*.h"))))
    functions = set(re.findall(r" T (\w+)$", defined, re.MULTILINE))
    assert len(functions & declared) > 30
    assert all(name.startswith("fm_") for name in functions)


@pytest.mark.parametrize("program", ["test_mqtt", "test_train"])
def test_c_units_against_the_single_file(program: str, single: Path, tmp_path: Path) -> None:
    command = ["cc", "-std=c99", "-O1", f"-I{single}", f"-I{HERE}"]
    run(*command, HERE / f"{program}.c", single / "fedmote.c", "-lm", "-o", tmp_path / program)
    assert " 0 failed" in run(tmp_path / program, cwd=tmp_path)


def test_an_adapter_compiles_beside_the_two_files(single: Path, tmp_path: Path) -> None:
    """Its includes find the one header."""
    folders = [CSDK / "port/posix", CSDK / "port/socket"]
    for source in [source for folder in folders for source in folder.glob("*.c")]:
        run(
            "cc",
            *STRICT,
            f"-I{single}",
            *(f"-I{folder}" for folder in folders),
            "-c",
            source,
            "-o",
            tmp_path / "adapter.o",
        )


def test_names_for_one_file_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sources define the same macro; a header that both include comes once."""
    monkeypatch.setattr(amalgamate, "CSDK", tmp_path)
    for folder in ("include/fedmote", "src", "train"):
        (tmp_path / folder).mkdir(parents=True)
    header = "#define FM_VERSION 0x00020304u\nint get(int x);\nint own(int x);\n"
    (tmp_path / "include/fedmote/fm_client.h").write_text(header)
    (tmp_path / "src/common.h").write_text("static inline int twice(int x) { return 2 * x; }\n")
    for name, number in (("get", 20), ("own", 1)):
        (tmp_path / f"src/{name}.c").write_text(
            f'#include "fedmote/fm_client.h"\n#include "common.h"\n#define N {number}\n'
            f"int {name}(int x) {{ return twice(x) + N; }}\n"
        )
    (tmp_path / "fedmote").mkdir()
    for name, text in amalgamate.amalgamate().items():
        (tmp_path / name).write_text(text)
        assert "fedmote 2.3.4" in text
    (tmp_path / "main.c").write_text('#include "fedmote.h"\nint main(void) { return get(1) + own(4); }\n')
    run("cc", "-Werror", tmp_path / "main.c", tmp_path / "fedmote.c", "-o", tmp_path / "main")
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 31


# ---- frameworks ----

STAND_INS = HERE / "stand_ins"


def kconfig_of(path: Path, header: Path, **values: str) -> dict[str, str]:
    """The symbols that a configuration with these values has, CONFIG_ before their names; also written to a header."""
    config = kconfiglib.Kconfig(str(path), warn=True, warn_to_stderr=False)
    for name, value in values.items():
        assert config.syms[name].set_value(value)
    assert config.warnings == []
    config.write_autoconf(str(header))
    return {f"CONFIG_{s.name}": s.str_value for s in config.unique_defined_syms if s.str_value not in ("", "n")}


@pytest.mark.parametrize(("values", "limits"), [
    ({}, "tensors 16 acks 8"),
    ({"FEDMOTE_MAX_TENSORS": "4", "FEDMOTE_INT8": "n", "FEDMOTE_QUERY": "y"}, "tensors 4 acks 8"),
])  # fmt: skip
def test_zephyr_module(values: dict[str, str], limits: str, tmp_path: Path) -> None:
    module = yaml.safe_load((ROOT / "zephyr/module.yml").read_text())
    assert module["name"] == "fedmote"
    assert module["build"]["cmake"] == "zephyr"  # where the stand-in looks
    header = tmp_path / "autoconf.h"
    config = kconfig_of(ROOT / module["build"]["kconfig"], header, FEDMOTE="y", **values)
    lines = f"set(ZEPHYR_EXTRA_MODULES {ROOT})\nfind_package(Zephyr REQUIRED)\ntarget_sources(app PRIVATE main.c)\n"
    options = [f"-D{name}={value}" for name, value in config.items()]
    options += [f"-DAUTOCONF={header}", f"-DZephyr_DIR={STAND_INS / 'zephyr/cmake'}"]
    assert project(tmp_path / "p", lines, *options, program="app") == WORKS + limits
    commands = run("ninja", "-C", tmp_path / "p/build", "-t", "commands", "app")
    assert f"FM_WITH_INT8={int('FEDMOTE_INT8' not in values)}" in commands
    assert f"FM_WITH_QUERY={int('FEDMOTE_QUERY' in values)}" in commands


def test_zephyr_module_that_is_off(tmp_path: Path) -> None:
    assert kconfig_of(ROOT / "zephyr/Kconfig", tmp_path / "autoconf.h") == {}
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(p C)\n"
        f'add_subdirectory("{ROOT / "zephyr"}" fedmote)\nif(TARGET fedmote)\n  message(FATAL_ERROR "on")\nendif()\n'
    )
    run("cmake", "-G", "Ninja", "-S", tmp_path, "-B", tmp_path / "build")


def test_esp_idf_reads_the_component_as_a_script_first(tmp_path: Path) -> None:
    """How it is built then, tests/hil/test_points_devices.py sees."""
    script = tmp_path / "early.cmake"
    stand_in = STAND_INS / "esp_idf/tools/cmake/project.cmake"
    script.write_text(f'set(ESP_PLATFORM 1)\ninclude("{stand_in}")\ninclude("{ROOT / "CMakeLists.txt"}")\n')
    sources = len([*CSDK.glob("src/*.c"), *CSDK.glob("train/*.c")])
    sources += len([*CSDK.glob("port/esp_idf/*.c"), *CSDK.glob("port/socket/*.c")])
    done = subprocess.run(["cmake", "-P", script], env={**os.environ, "PATH": TOOLS}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, f"registered {sources}")


def test_esp_idf_manifest() -> None:
    manifest = yaml.safe_load((ROOT / "idf_component.yml").read_text())
    assert manifest["version"] == VERSION
    assert manifest["license"] == "Apache-2.0"
    for pattern in manifest["files"]["exclude"]:
        folder = pattern.removesuffix("/**/*")
        assert (ROOT / folder).is_dir()
        assert folder not in ("csdk", "schema", ".")


def test_platformio(tmp_path: Path) -> None:
    """What PlatformIO would compile, from the fields of library.json, links and runs."""
    manifest = json.loads((ROOT / "library.json").read_text())
    assert re.fullmatch(r"[\w-]+", manifest["name"])
    assert manifest["version"] == VERSION
    assert manifest["license"] == "Apache-2.0"
    for path in manifest["export"]["include"]:
        assert (ROOT / path).exists(), path
    build = manifest["build"]
    assert (ROOT / build["includeDir"] / manifest["headers"]).is_file()
    assert build["srcFilter"][0] == "-<*>"
    globs = [first_group(re.fullmatch(r"\+<(.+)>", rule)) for rule in build["srcFilter"][1:]]
    sources = [source for pattern in globs for source in sorted((ROOT / build["srcDir"]).glob(pattern))]
    assert {s.parent.name for s in sources} == {"src", "train"}
    exported = [ROOT / path for path in manifest["export"]["include"]]
    assert all(any(s.is_relative_to(folder) for folder in exported) for s in sources)
    (tmp_path / "main.c").write_text(CONSUMER)
    run("cc", f"-I{ROOT / build['includeDir']}", *sources, tmp_path / "main.c", "-o", tmp_path / "consumer")
    assert run(tmp_path / "consumer") == WORKS + LIMITS


def test_arduino(single: Path, tmp_path: Path) -> None:
    """The library as the IDE's rules have it: src/ compiled, its header on the path, sketches in C++."""
    folder = single / "arduino"
    lines = (folder / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    required = ["name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"]
    assert fields.keys() >= {*required}
    assert fields["version"] == VERSION
    assert fields["category"] == "Data Processing"  # one of Arduino's list
    assert (folder / "src" / fields["includes"]).is_file()
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    sources = [s for s in (folder / "src").rglob("*") if s.suffix in (".c", ".cpp")]
    objects = []
    for source in sources:
        objects.append(tmp_path / f"{source.stem}.o")
        run("cc", "-std=gnu11", "-Os", f"-I{folder / 'src'}", "-c", source, "-o", objects[-1])
    sketch = tmp_path / "sketch.cpp"
    sketch.write_text(SKETCH)
    run(*STRICT_CXX, f"-I{folder / 'src'}", sketch, *objects, "-o", tmp_path / "sketch")
    assert run(tmp_path / "sketch") == "offline"


SKETCH = """
#include <stdio.h>
#include <fedmote.h>
static fm_client_t client;
int main() {
  fputs(fm_client_state(&client) == FM_STATE_OFFLINE ? "offline" : "strange", stdout);
  return 0;
}
"""


# ---- one version, one header ----


def test_everywhere_the_same_version() -> None:
    assert amalgamate.version() == VERSION
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert first_group(re.search(r"project\(fedmote VERSION (\S+)", cmake)) == VERSION


def test_the_header_for_all_has_all(tmp_path: Path) -> None:
    text = (CSDK / "include/fedmote.h").read_text()
    assert re.findall(r'#include "(.*)"', text) == sorted(f"fedmote/{f.name}" for f in CSDK.glob("include/fedmote/*.h"))
    source = tmp_path / "all.cpp"
    source.write_text(SKETCH.replace("<fedmote.h>", '"fedmote.h"'))
    run(*STRICT_CXX, f"-I{CSDK / 'include'}", "-c", source, "-o", tmp_path / "all.o")


@pytest.mark.parametrize(
    ("header", "function"),
    [
        ("fm_client.h", "fm_client_init"), ("fm_codec.h", "fm_message_decode"), ("fm_crc32.h", "fm_crc32"),
        ("fm_keep.h", "fm_keep_init"), ("fm_mqtt.h", "fm_mqtt_init"), ("fm_serial.h", "fm_serial_init"),
        ("fm_tensor.h", "fm_tensors_layout_crc32"), ("fm_train.h", "fm_trainer_init"),
    ],
)  # fmt: skip
def test_each_header_alone_links_from_cplusplus(tmp_path: Path, header: str, function: str) -> None:
    """C++ would otherwise look for a function of another name."""
    source = tmp_path / "use.cpp"
    source.write_text(f'#include "fedmote/{header}"\nvoid *use(void) {{ return (void *)&{function}; }}\n')
    command = ["c++", "-c", f"-I{ROOT}/csdk/include", str(source), "-o", str(tmp_path / "use.o")]
    subprocess.run(command, check=True)
    wanted = subprocess.run(["nm", "-u", tmp_path / "use.o"], check=True, capture_output=True, text=True).stdout
    assert function in wanted.split()

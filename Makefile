# SPDX-License-Identifier: Apache-2.0
# The one way to run anything. `make demo` and `make test` set up what they need.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

C_SOURCES := $(wildcard csdk/include/*.h csdk/include/fedmote/*.h csdk/src/*.[ch] csdk/train/*.[ch] csdk/port/posix/*.[ch] \
  csdk/port/socket/*.[ch])
BINDINGS  := $(wildcard bindings/src/*.[ch]) bindings/build_ffi.py
C_FORMAT  := $(shell git ls-files '*.c' '*.h' 2>/dev/null)

.PHONY: help venv demo test crash hil brokers frameworks bench size amalgamation firmware pictures format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

# ------------------------------------------------------------------------------------------------------------- set up

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedmote needs Python 3.11 or newer; name one with make PYTHON=python3.12 ..." >&2; exit 1; }
	@.ci/need '$(PYTHON) -c "import ensurepip"' python3-venv
	@.ci/need 'test -f "$$($(PYTHON) -c "import sysconfig; print(sysconfig.get_path(\"include\"))")/Python.h"' python3-dev
	@.ci/need 'command -v $${CC:-cc}' gcc libc6-dev
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check 'scikit-build-core>=0.11' 'cffi>=1.16' 'cmake>=3.26' ninja

# Changes only when a Python file comes or goes: the installation knows each of them by name.
$(shell mkdir -p build && find server bindings -name '*.py' | sort > build/.modules.new && \
  { cmp -s build/.modules.new build/.modules || mv build/.modules.new build/.modules; })

# Built without isolation, so that a change of C compiles what changed and no more. Python files are used in place.
$(VENV)/.run: $(BIN)/python pyproject.toml CMakeLists.txt $(C_SOURCES) $(BINDINGS) build/.modules
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.run
	@mkdir -p build
	@$(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"], sep="\n")' > build/test.txt
	$(BIN)/pip install -q --disable-pip-version-check -r build/test.txt
	@touch $@

venv: $(VENV)/.run $(VENV)/.test ## the virtual environment in .venv, with everything for tests

# ---------------------------------------------------------------------------------------------------------------- run

demo: $(VENV)/.run ## a federation of real C clients over a real broker; ARGS="--help" for its options
	@.ci/need 'command -v mosquitto' mosquitto
	@PATH="$$PATH:/usr/sbin" $(BIN)/fedmote demo $(ARGS)

bench: $(VENV)/.run ## every figure of the README, against Flower's; ARGS names one
	@.ci/need 'command -v mosquitto' mosquitto
	@.ci/need 'command -v arm-none-eabi-gcc' gcc-arm-none-eabi libnewlib-arm-none-eabi
	@PATH="$$PATH:/usr/sbin" $(BIN)/python bench/run.py $(ARGS)

size: size-tools ## flash, RAM and stack of the device library on five processors
	@$(PYTHON) csdk/tools/size.py $(ARGS)

FIRMWARE := cortex_m3_serial riscv32_serial cortex_m0_sensor cortex_m3_mqtt

.PHONY: firmware-tools
firmware-tools: cross-tools
	@.ci/need 'command -v qemu-system-arm' qemu-system-arm
	@.ci/need 'command -v qemu-system-riscv32' qemu-system-misc
	@.ci/need 'command -v dpkg-source && test -f /usr/share/keyrings/debian-archive-keyring.gpg' dpkg-dev debian-archive-keyring
	@.ci/need 'command -v openssl' openssl

firmware: $(VENV)/.run firmware-tools ## bare-metal images for QEMU, build/firmware/NAME/NAME.elf; ARGS for cmake
	@for name in $(FIRMWARE); do \
	  case $$name in *_mqtt) firmware_examples/fetch_sources.sh ;; esac; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S firmware_examples/$$name -B build/firmware/$$name -G Ninja $(ARGS) >/dev/null; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/firmware/$$name; \
	done

amalgamation: ## the device library as fedmote.c and fedmote.h in build/amalgamation, and for Arduino in build/arduino
	@$(PYTHON) csdk/tools/amalgamate.py build/amalgamation --arduino build/arduino/fedmote

pictures: ## draw docs/img/architecture.svg from its source
	@.ci/need 'command -v dot' graphviz
	dot -Tsvg docs/img/architecture.dot -o docs/img/architecture.svg

# --------------------------------------------------------------------------------------------------------------- test

.PHONY: cross-tools size-tools test-tools lint
cross-tools:
	@.ci/need 'echo "#include <stdint.h>" | arm-none-eabi-gcc -xc -c -o /dev/null -' gcc-arm-none-eabi libnewlib-arm-none-eabi
	@.ci/need 'echo "#include <string.h>" | riscv64-unknown-elf-gcc --specs=picolibc.specs -xc -c -o /dev/null -' \
	  gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf

size-tools: cross-tools
	@.ci/need 'echo "#include <string.h>" | avr-gcc -xc -c -o /dev/null -' gcc-avr avr-libc

test-tools: size-tools firmware-tools
	@.ci/need 'command -v mosquitto' mosquitto
	@.ci/need 'command -v ip' iproute2
	@.ci/need 'command -v c++' g++
	@.ci/need 'command -v pkg-config' pkgconf
	@.ci/need 'command -v qemu-system-avr' qemu-system-misc
	@.ci/need 'command -v qemu-ppc && command -v qemu-arm' qemu-user
	@.ci/need 'echo "#include <stdio.h>" | powerpc-linux-gnu-gcc -xc -c -o /dev/null -' gcc-powerpc-linux-gnu libc6-dev-powerpc-cross
	@.ci/need 'echo "#include <stdio.h>" | arm-linux-gnueabihf-gcc -xc -c -o /dev/null -' gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
	@.ci/need 'command -v clang' clang
	@.ci/need 'test -n "$$(find $$(clang --print-resource-dir) -name "libclang_rt.fuzzer-*")"' libclang-rt-dev
	@.ci/need 'command -v clang-format' clang-format
	@.ci/need 'command -v cppcheck' cppcheck
	@.ci/need 'test -x /usr/bin/flatc && test -f /usr/include/flatbuffers/verifier.h' flatbuffers-compiler libflatbuffers-dev

lint: venv test-tools
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	@$(if $(C_FORMAT),clang-format --dry-run --Werror $(C_FORMAT))
	@cppcheck --quiet --std=c99 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	  --suppress=preprocessorErrorDirective:csdk/include/fedmote/fm_config.h --suppress=objectIndex:csdk/src/fm_codec.c \
	  -I csdk/include -I csdk/src -I csdk/train -I csdk/port/posix -I csdk/port/socket \
	  -I firmware_examples/app -I firmware_examples/app/serial csdk firmware_examples \
	  -ifirmware_examples/bare_metal/arch -ifirmware_examples/cortex_m3_mqtt/board/semihosting.c
	@$(BIN)/python csdk/tools/misra.py
	@$(BIN)/lizard --languages c --CCN 10 --length 60 --arguments 7 --warnings_only csdk firmware_examples bindings bench \
	  tests/hil tests/csdk/stand_ins
	@$(BIN)/lizard --languages python --CCN 10 --warnings_only server bindings bench csdk/tools firmware_examples \
	  -x '*/fedmote/wire/[A-Z]*'

# The reports come before pytest's own last line, which stays the last.
test: lint size ## all tests, with coverage of C and Python
	@mkdir -p build/coverage && rm -rf build/coverage/* build/ctests
	@status=0; \
	PATH="$$PATH:/usr/sbin" $(BIN)/coverage run -m pytest $(ARGS) | tee build/pytest.log || status=$$?; \
	$(BIN)/coverage combine -q && $(BIN)/coverage report --skip-covered | tail -n 40; \
	if [ -n "$$(find build/ctests -name '*.gcda' -print -quit 2>/dev/null)" ]; then \
	  echo "C, lines:";    $(BIN)/gcovr -r csdk --object-directory build/ctests build/ctests | tail -n +5; \
	  echo "C, branches:"; $(BIN)/gcovr -r csdk --txt-metric branch build/ctests | tail -n +5; \
	  echo "C core, branches:"; \
	  $(BIN)/gcovr -r csdk/src --txt-metric branch --fail-under-branch 90 build/ctests | tail -n 2 || status=$$?; \
	fi; \
	tail -n 1 build/pytest.log; \
	exit $$status

hil: venv firmware-tools ## emulated boards in federations, and 50 power cuts of each; ARGS for pytest. Root for lost packets
	@.ci/need 'command -v mosquitto' mosquitto
	@.ci/need 'command -v ip' iproute2
	@PATH="$$PATH:/usr/sbin" FEDMOTE_SOAK_HOURS=24 $(BIN)/python -m pytest --moments 50 --durations 10 $(ARGS) \
	  tests/hil/test_fleet.py tests/hil/test_firmware_power_cuts.py tests/hil/test_emulated_device.py tests/hil/test_tun.py \
	  tests/hil/test_soak.py

crash: venv ## the server killed at 200 random points, 200 chosen ones, and 200 of asynchronous rounds; ARGS for pytest
	@.ci/need 'command -v mosquitto' mosquitto
	@PATH="$$PATH:/usr/sbin" $(BIN)/python -m pytest --kills 200 --durations 3 -rP $(ARGS) tests/crash

chaos: venv ## 30 minutes of a bad network while everything dies now and then; root. ARGS="--minutes 5" for less
	@.ci/need 'command -v mosquitto' mosquitto
	@.ci/need 'command -v ip' iproute2
	@PATH="$$PATH:/usr/sbin" $(BIN)/python tests/chaos/chaos.py $(ARGS)

brokers: venv ## four C and two Python devices over mosquitto, RabbitMQ, NATS and aedes as they come; ARGS for pytest
	@.ci/need 'command -v mosquitto' mosquitto
	@.ci/need 'ls /usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server' rabbitmq-server
	@.ci/need 'command -v nats-server' nats-server
	@.ci/need 'command -v npm && command -v node' npm nodejs
	@mkdir -p build/aedes && cd build/aedes && { test -d node_modules/aedes || npm install --silent aedes; }
	@PATH="$$PATH:/usr/sbin" $(BIN)/python -m pytest -rP $(ARGS) tests/foreign/brokers.py

frameworks: venv ## torchvision's ResNet-18 and a network with BatchNorm over Python devices; ARGS for pytest
	@.ci/need 'command -v mosquitto' mosquitto
	@$(BIN)/python -c 'import torch, torchvision' 2>/dev/null || \
	  $(BIN)/pip install -q --disable-pip-version-check 'torch>=2' 'torchvision>=0.15'
	@PATH="$$PATH:/usr/sbin" $(BIN)/python -m pytest -rP $(ARGS) tests/foreign/frameworks.py

format: venv ## put Python and C into the project's format
	$(BIN)/ruff check --quiet --fix; $(BIN)/ruff format --quiet
	clang-format -i $(C_FORMAT)

clean: ## remove all that make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/results
	find . -name __pycache__ -prune -exec rm -rf {} +

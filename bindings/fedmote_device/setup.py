# SPDX-License-Identifier: Apache-2.0
"""Write a Device's address, options and trainer into the settings that the C code reads."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import ffi, lib
from fedmote_device.parameters import ParameterTable
from fedmote_device.python_trainer import PythonTrainer
from fedmote_device.trainers import CTrainer, NumPyClient

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData

_RATES: Final = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)  # fm_posix_tty.c
_FLOAT32: Final = 1 << lib.FM_ENCODING_FLOAT32
_ENCODINGS: Final[dict[str, int]] = {"float32": _FLOAT32, "int8": _FLOAT32 | 1 << lib.FM_ENCODING_INT8}


class Options(TypedDict, total=False):
    """Settings of a Device that have a default."""

    seed: int | None
    """Of the boot number, jitter, rounding and the order of examples. None: another one each time. With one that is
    given, each life of the device has the same boot number, so it may believe messages that were for a former one."""
    encoding: str
    """"float32", or "int8" where the plan allows it."""
    delta: bool
    """Send differences to the base model."""
    examples: int
    """Number of local examples of a NumPyClient; a CTrainer counts its own."""
    keep_alive_s: int
    backoff_ms: tuple[int, int]
    """First and longest wait before the device connects again."""
    retry_ms: tuple[int, int]
    """First and longest wait for the server's answer."""
    free_memory_kib: int
    """Memory that training may take, told to the server; 0: unknown."""


DEFAULTS: Final[Options] = {
    "seed": None,
    "encoding": "float32",
    "delta": False,
    "examples": 0,
    "keep_alive_s": 30,
    "backoff_ms": (500, 60_000),
    "retry_ms": (1000, 60_000),
    "free_memory_kib": 0,
}


class Address(NamedTuple):
    """Where a device's server is, in the words of fmb_settings_t.

    baud: not 0 for a serial line, whose path is `host`. memory: the link is in memory. fetch_by_request: it asks for
    model chunks with a ChunkRequest.
    """

    host: str = ""
    port: int = 0
    username: str = ""
    password: str = ""
    baud: int = 0
    memory: bool = False
    fetch_by_request: bool = False


def parse_address(broker: str) -> Address:
    """Read the `broker` of a Device. Raise ValueError if it is no address."""
    if broker in ("memory:", "memory:request"):
        return Address(memory=True, fetch_by_request=broker == "memory:request")
    url = urlsplit(broker)
    if url.scheme == "serial" and url.path:
        return Address(host=url.path, baud=_baud(url))
    if url.scheme == "mqtt" and url.hostname:
        return Address(url.hostname, url.port or 1883, unquote(url.username or ""), unquote(url.password or ""))
    raise ValueError(f"broker {broker!r}: expected mqtt://host[:port], serial:///dev/... or memory:")


def _baud(url: SplitResult) -> int:
    if not url.query:
        return 115200
    name, _, value = url.query.partition("=")
    if name != "baud" or value not in map(str, _RATES):
        raise ValueError(f"{url.query!r}: expected baud= and one of {', '.join(map(str, _RATES))}")
    return int(value)


def complete(given: Mapping[str, object]) -> Options:
    """Return the options with defaults for those not given. Raise TypeError for an unknown one."""
    unknown = given.keys() - DEFAULTS.keys()
    if unknown:
        raise TypeError(f"a Device has no option {', '.join(sorted(unknown))}; it has {', '.join(DEFAULTS)}")
    options: Options = {**DEFAULTS, **given}  # type: ignore[typeddict-item]
    return options


def write_settings(settings: CData, device_id: str, federation: str, address: Address, options: Options) -> None:
    """Fill in all of fmb_settings_t but the trainer. Raise ValueError for what does not fit."""
    if options["encoding"] not in _ENCODINGS:
        raise ValueError(f"encoding {options['encoding']!r}: expected one of {', '.join(_ENCODINGS)}")
    settings.device_id = _text("device_id", device_id, 63)
    settings.federation = _text("federation", federation, 63)
    settings.host = _text("broker", address.host, 255)
    settings.port = str(address.port).encode()
    settings.username = _text("user", address.username, 255)
    settings.password = _text("password", address.password, 255)
    settings.baud = address.baud
    settings.memory, settings.fetch_by_request = address.memory, address.fetch_by_request
    seed = options["seed"]
    settings.seed = (secrets.randbits(32) if seed is None else seed) & 0xFFFFFFFF
    settings.keep_alive_s = options["keep_alive_s"]
    settings.backoff_min_ms, settings.backoff_max_ms = options["backoff_ms"]
    settings.retry_min_ms, settings.retry_max_ms = options["retry_ms"]
    settings.encodings = _ENCODINGS[options["encoding"]]
    settings.prefer_delta = options["delta"]
    settings.free_memory_kib = options["free_memory_kib"]


def _text(what: str, value: str, longest: int) -> bytes:
    data = value.encode()
    if len(data) > longest or b"\0" in data:
        raise ValueError(f"{what} {value!r}: at most {longest} bytes")
    return data


class Memory(list[object]):
    """Python objects that C points to. They live as long as the device."""

    def floats(self, count: int) -> tuple[NDArray[np.float32], CData]:
        """Return an array of zeros and C's pointer to it."""
        values = np.zeros(count, np.float32)
        pointer: CData = ffi.from_buffer("float[]", values, require_writable=True)
        self.extend((values, pointer))
        return values, pointer


def use_c_trainer(device: CData, trainer: CTrainer, memory: Memory) -> NDArray[np.float32]:
    """Have the C code train. Return its parameters. Raise ValueError for data that do not fit the layers."""
    settings = device.settings
    x, y = trainer.arrays()
    for i, width in enumerate(trainer.layers):
        settings.widths[i] = width
    settings.layers = len(trainer.layers) - 1
    count = lib.fm_train_parameters(settings.widths, settings.layers)
    model, settings.parameters = memory.floats(count)
    _, settings.base = memory.floats(count)
    settings.arena_floats = lib.fm_train_arena_floats(settings.widths, settings.layers)
    _, settings.arena = memory.floats(settings.arena_floats)
    features, labels = ffi.from_buffer("float[]", x), ffi.from_buffer("uint8_t[]", y)
    settings.features, settings.labels = features, labels
    settings.examples = len(x)
    memory.extend((x, y, features, labels))
    return model


def use_python_trainer(device: CData, client: NumPyClient, examples: int, memory: Memory) -> PythonTrainer:
    """Have a NumPyClient train. Return its caller. Raise TypeError or ValueError for what cannot be shared."""
    table = ParameterTable(client.get_parameters({}))
    if len(table.entries) > lib.FMB_MAX_TENSORS:
        raise ValueError(f"{len(table.entries)} parameter arrays; the library takes {lib.FMB_MAX_TENSORS} at most")
    model, data = memory.floats(table.elements)
    _, base = memory.floats(table.elements)
    tensors = ffi.new("fm_tensor_t[]", len(table.entries))
    memory.append(tensors)
    at = 0
    for tensor, entry in zip(tensors, table.entries, strict=True):
        name = ffi.new("char[]", entry.name.encode())
        memory.append(name)
        tensor.name = name
        tensor.count, tensor.data, tensor.base = entry.size, data + at, base + at
        at += entry.size
    device.tensors, device.tensor_count = tensors, len(tensors)
    trainer = PythonTrainer(client, model, table)
    handle = ffi.new_handle(trainer)
    memory.append(handle)
    device.settings.python = handle
    device.settings.examples = examples
    return trainer

# SPDX-License-Identifier: Apache-2.0
"""A desktop device: the real C client with its link and stream, trained in C or by Python callbacks."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import ffi, lib
from fedmote_device.flash import Flash

Parameters = list[NDArray[np.float32]]
Config = dict[str, float | int]

STATES: Final = (
    "offline", "greeting", "idle", "downloading", "checking", "working", "sealing", "offering", "uploading",
    "confirming", "holding", "refused",
)  # fmt: skip
"""Names of the client's states, as in fm_state_t."""

_OK, _DONE, _UNSUPPORTED, _FAILED = 0, 2, 6, 10  # fm_status_t
_RATES = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)  # fm_posix_tty.c
_ENCODINGS = {"float32": 1, "int8": 1 | 1 << 2}


class NumPyClient(Protocol):
    """What Python code trains with; the shape of Flower's class of that name."""

    def get_parameters(self, config: Config) -> Parameters:
        """Return the present parameters, whose shapes are the model's."""
        ...

    def fit(self, parameters: Parameters, config: Config) -> Any:
        """Train from `parameters`: return (new parameters, examples, metrics).

        It may instead be a generator that yields such a triple after each step: then a closing notice ends it after
        the present step, and what it yielded last counts as a partial update.
        """
        ...

    def evaluate(self, parameters: Parameters, config: Config) -> tuple[float, int, dict[str, float]]:
        """Return (mean loss, examples, metrics); the metric "accuracy" is reported when there."""
        ...


class Queryable(Protocol):
    """What a NumPyClient that answers queries also has."""

    def query(self, field: int, low: float, high: float, bins: int) -> tuple[Sequence[int], float]:
        """Return (values in each of `bins` bins of equal width over [low, high), their sum).

        Values outside the range count as the nearer of its ends. field: field_number() of its name. KeyError: there is
        no such field.
        """
        ...


def field_number(name: str) -> int:
    """Return what stands for a field of queries on the wire: the CRC-32 of its name."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class CTrainer:
    """Train dense layers in C.

    layers: widths, features first: (64, 32, 10). x: float32 [examples, features]. y: labels [examples].
    Queries may ask for the fields "label", "feature0", "feature1", ...
    """

    layers: Sequence[int]
    x: NDArray[np.float32]
    y: NDArray[np.integer[Any]]


class Device:
    """One device on an MQTT broker, on a serial line, or on a link in memory.

    device_id: 1 to 63 of [A-Za-z0-9_.-].
    broker: mqtt://[user:password@]host[:port], with %xx for what a URL cannot hold; or
    serial:///dev/ttyUSB0?baud=115200; or "memory:", where the caller is the other end and the clock: see poll(),
    deliver(), take(), wanted ("memory:request" has chunks asked for with a ChunkRequest, as on serial).
    trainer: a CTrainer or a NumPyClient.
    flash: keeps model and update over a power cut: the next Device made with it goes on where this one was.
    encoding: "float32" or "int8" (where the plan allows it). delta: send differences to the base model.
    free_memory_kib: what training may take, told to the server; 0: unknown.

    Not for several threads at once. Raises ValueError for settings that the C library refuses.
    """

    def __init__(
        self,
        device_id: str,
        broker: str,
        *,
        federation: str,
        trainer: CTrainer | NumPyClient,
        seed: int = 1,
        encoding: str = "float32",
        delta: bool = False,
        examples: int = 0,
        keep_alive_s: int = 30,
        backoff_ms: tuple[int, int] = (500, 60_000),
        retry_ms: tuple[int, int] = (1000, 60_000),
        flash: Flash | None = None,
        free_memory_kib: int = 0,
    ) -> None:
        url = urlsplit(broker)
        memory = broker in ("memory:", "memory:request")
        line = url.scheme == "serial" and url.path
        if not memory and not line and (url.scheme != "mqtt" or not url.hostname):
            raise ValueError(f"broker {broker!r}: expected mqtt://host[:port], serial:///dev/... or memory:")
        if encoding not in _ENCODINGS:
            raise ValueError(f"encoding {encoding!r}: expected one of {', '.join(_ENCODINGS)}")
        self._c = ffi.new("fmb_device_t *")
        settings = self._c.settings
        settings.device_id = _text("device_id", device_id, 63)
        settings.federation = _text("federation", federation, 63)
        settings.host = _text("broker", url.path if line else url.hostname or "", 255)
        settings.baud = _baud(url.query) if line else 0
        settings.port = str(url.port or 1883).encode()
        settings.username = _text("user", unquote(url.username or ""), 255)
        settings.password = _text("password", unquote(url.password or ""), 255)
        settings.seed = seed & 0xFFFFFFFF
        settings.keep_alive_s = keep_alive_s
        settings.backoff_min_ms, settings.backoff_max_ms = backoff_ms
        settings.retry_min_ms, settings.retry_max_ms = retry_ms
        settings.encodings = _ENCODINGS[encoding]
        settings.prefer_delta = delta
        settings.free_memory_kib = free_memory_kib
        settings.memory, settings.fetch_by_request = memory, broker == "memory:request"
        self._keep: list[Any] = [flash]
        if flash is not None:
            settings.flash = flash._c
        self._python: _PythonTrainer | None = None
        if isinstance(trainer, CTrainer):
            self._use_c(trainer)
        else:
            self._use_python(trainer, examples)
        status = lib.fmb_device_init(self._c)
        if status != _OK:
            raise ValueError(f"device {device_id!r}: the library refuses these settings (status {status})")

    def _floats(self, count: int) -> tuple[NDArray[np.float32], Any]:
        values = np.zeros(count, np.float32)
        pointer = ffi.from_buffer("float[]", values, require_writable=True)
        self._keep += [values, pointer]
        return values, pointer

    def _use_c(self, trainer: CTrainer) -> None:
        settings = self._c.settings
        widths = list(trainer.layers)
        if not 2 <= len(widths) <= 5:
            raise ValueError(f"layers {tuple(widths)}: expected 2 to 5 widths")
        x = np.ascontiguousarray(trainer.x, np.float32)
        y = np.asarray(trainer.y)
        if x.ndim != 2 or x.shape[1] != widths[0] or y.shape != (len(x),) or len(x) == 0:
            raise ValueError(f"data of shapes {x.shape} and {y.shape} do not fit a network of {widths[0]} features")
        if not 0 <= int(y.min()) <= int(y.max()) < min(widths[-1], 256):
            raise ValueError(f"labels {int(y.min())} to {int(y.max())} do not fit {widths[-1]} classes")
        y = np.ascontiguousarray(y, np.uint8)
        for i, width in enumerate(widths):
            settings.widths[i] = width
        settings.layers = len(widths) - 1
        count = lib.fm_train_parameters(settings.widths, settings.layers)
        self.model, settings.parameters = self._floats(count)
        _, settings.base = self._floats(count)
        arena = lib.fm_train_arena_floats(settings.widths, settings.layers)
        _, settings.arena = self._floats(arena)
        settings.arena_floats = arena
        features, labels = ffi.from_buffer("float[]", x), ffi.from_buffer("uint8_t[]", y)
        settings.features, settings.labels = features, labels
        settings.examples = len(x)
        self._keep += [x, y, features, labels]

    def _use_python(self, client: NumPyClient, examples: int) -> None:
        shapes = [np.shape(p) for p in client.get_parameters({})]
        sizes = [int(np.prod(s)) for s in shapes]
        self.model, data = self._floats(sum(sizes))
        _, base = self._floats(sum(sizes))
        at = 0
        for i, size in enumerate(sizes):
            name = f"parameter{i}".encode()
            if lib.fmb_device_add_tensor(self._c, name, size, False, data + at, base + at) != _OK:
                raise ValueError(f"{len(sizes)} parameter arrays are more than the library's FM_MAX_TENSORS")
            at += size
        self._python = _PythonTrainer(client, self.model, shapes)
        handle = ffi.new_handle(self._python)
        self._keep.append(handle)
        self._c.settings.python = handle
        self._c.settings.examples = examples

    @property
    def state(self) -> str:
        """What the client is doing, one of STATES."""
        return STATES[int(lib.fm_client_state(ffi.addressof(self._c.client)))]

    @property
    def online(self) -> bool:
        """Whether the server has welcomed the present connection."""
        return bool(lib.fm_client_online(ffi.addressof(self._c.client)))

    @property
    def round(self) -> int:
        """Round of the last plan taken, 0 before the first."""
        return int(self._c.client.plan.round)

    @property
    def chunk(self) -> int:
        """The next chunk of the download or upload."""
        return int(self._c.client.next_chunk)

    @property
    def steps(self) -> tuple[int, int]:
        """Steps done and planned of the last plan taken."""
        return int(self._c.client.work.steps), int(self._c.client.work.planned_steps)

    @property
    def counters(self) -> dict[str, int]:
        """The client's counters (fm_client_counters_t)."""
        counters = self._c.client.counters
        return {name: int(getattr(counters, name)) for name in dir(counters)}

    @property
    def link_counters(self) -> dict[str, int]:
        """The link's counters (fm_mqtt_counters_t or fm_serial_counters_t)."""
        counters = (self._c.serial if self._c.settings.baud else self._c.mqtt).counters
        return {name: int(getattr(counters, name)) for name in dir(counters)}

    @property
    def restored(self) -> int:
        """Model chunks, and the update, that the flash still had when the device was made."""
        return int(self._c.keep.restored)

    @property
    def durable(self) -> int:
        """Model chunks of the present plan that the flash has."""
        return int(self._c.keep.chunks)

    @property
    def storage_errors(self) -> int:
        """Operations of the flash that failed, and models that did not fit."""
        return int(self._c.keep.errors)

    @property
    def layout_crc32(self) -> int:
        """CRC-32 of the shared tensors' layout."""
        return int(lib.fmb_device_layout_crc32(self._c))

    @property
    def step_limit(self) -> int:
        """Steps after which the C trainer stalls until the closing notice, as a slow device would; 0: none."""
        return int(self._c.step_limit)

    @step_limit.setter
    def step_limit(self, steps: int) -> None:
        self._c.step_limit = steps

    def set_step_limits(self, limits: Sequence[int]) -> None:
        """Set step_limit for each round, the first entry for round 0; taken when a round's work begins."""
        array = ffi.new("uint32_t[]", list(limits))
        self._keep.append(array)
        self._c.step_limits, self._c.limit_count = array, len(limits)

    @property
    def finish_at_limit(self) -> bool:
        """Whether the device sends what it has at step_limit, instead of waiting for the closing notice."""
        return bool(self._c.finish_at_limit)

    @finish_at_limit.setter
    def finish_at_limit(self, on: bool) -> None:
        self._c.finish_at_limit = on

    def poll(self, now_ms: int | None = None) -> int:
        """Do one bounded piece of work; returns the milliseconds to rest if nothing arrives. None: the real clock.

        run() and run_many() do this by themselves.
        """
        wait: int = lib.fmb_device_poll(self._c, lib.fmb_now_ms() if now_ms is None else now_ms & 0xFFFFFFFF)
        self._raise_error()
        return wait

    def deliver(self, message: bytes, now_ms: int) -> int:
        """Poll with a message from the server ("memory:" only); it is lost while the link is cut."""
        if not self._c.settings.memory:
            raise ValueError("deliver() is for a device on memory:")
        wait: int = lib.fmb_device_deliver(
            self._c, ffi.from_buffer("uint8_t[]", message), len(message), now_ms & 0xFFFFFFFF
        )
        self._raise_error()
        return wait

    def take(self) -> bytes | None:
        """Take the message to the server that waits ("memory:" only), so that the next one can be made."""
        size = lib.fmb_mailbox_waiting(ffi.addressof(self._c.mailbox))
        if size == 0:
            return None
        out = ffi.new("uint8_t[]", size)
        if lib.fmb_mailbox_take(ffi.addressof(self._c.mailbox), out) != _OK:
            return None
        return bytes(ffi.buffer(out))

    @property
    def wanted(self) -> tuple[int, int] | None:
        """(version, index) of the model chunk to deliver next ("memory:" only); None: the client waits for none."""
        mailbox = self._c.mailbox
        return (int(mailbox.fetch_version), int(mailbox.fetch_index)) if mailbox.fetching else None

    def fileno(self) -> int:
        """The socket's descriptor, -1 while there is none: to wait on between polls."""
        return int(lib.fmb_device_fd(self._c, ffi.new("bool *")))

    def _raise_error(self) -> None:
        """Raise what a Python trainer raised."""
        if self._python is not None and self._python.error is not None:
            error, self._python.error = self._python.error, None
            raise error

    def cut_link(self) -> None:
        """Break the link as a tunnel does, without a word to the broker, until restore_link()."""
        lib.fmb_device_cut(self._c)

    def restore_link(self) -> None:
        """Let the link come back."""
        lib.fmb_device_restore(self._c)

    def set_state(self, battery: int = 255, flags: int = 0) -> None:
        """Tell the server what gates taking part: percent (255 unknown), bits 0 charging, 1 metered, 2 busy."""
        lib.fm_client_set_device_state(ffi.addressof(self._c.client), battery, flags)

    def withdraw(self, reason: int = 0) -> None:
        """Stop the present round's work and tell the server (a member of `fedmote.wire.WithdrawReason`)."""
        lib.fm_client_withdraw(ffi.addressof(self._c.client), reason)

    def close(self) -> None:
        """Disconnect from the broker properly, so that it publishes no will."""
        lib.fmb_device_close(self._c)

    def run(self, until: Callable[[Device], bool], timeout_s: float = 60.0) -> None:
        """Run until `until(self)`; TimeoutError after `timeout_s`."""
        run_many([self], lambda: until(self), timeout_s)


class _PythonTrainer:
    """Calls a NumPyClient, one step of its fit at a time."""

    def __init__(self, client: NumPyClient, model: NDArray[np.float32], shapes: list[tuple[int, ...]]) -> None:
        self.client = client
        self.model = model
        self.shapes = shapes
        self.config: Config = {}
        self.steps: Iterator[Any] | None = None
        self.error: BaseException | None = None

    def parameters(self) -> Parameters:
        """Copy the model out, in the client's shapes."""
        out, at = [], 0
        for shape in self.shapes:
            size = int(np.prod(shape))
            out.append(self.model[at : at + size].reshape(shape).copy())
            at += size
        return out

    def step(self, work: Any) -> int:
        """One step of fit: all of it unless fit is a generator."""
        if self.steps is None:
            result = self.client.fit(self.parameters(), self.config)
            self.steps = result if hasattr(result, "__next__") else iter([result])
            self.whole = not hasattr(result, "__next__")
        step = next(self.steps, None)
        if step is None:
            work.planned_steps = work.steps
            return _DONE
        parameters, examples, metrics = step
        self.model[:] = np.concatenate([np.ravel(p) for p in parameters])
        work.steps += int(metrics.get("steps", 1)) if self.whole else 1
        work.examples = examples
        work.loss = float(metrics.get("loss", 0.0))
        work.planned_steps = max(int(metrics.get("planned_steps", 0)), work.steps + (0 if self.whole else 1))
        return _DONE if self.whole else _OK

    def evaluate(self, work: Any) -> int:
        """Run evaluate, all at once."""
        loss, examples, metrics = self.client.evaluate(self.parameters(), self.config)
        work.steps = work.planned_steps = 1
        work.examples, work.loss = examples, loss
        work.correct = round(float(metrics.get("accuracy", 0.0)) * examples)
        return _DONE

    def query(self, field: int, low: float, high: float, bins: int, answer: Any) -> int:
        """Have the client count, all at once."""
        query = getattr(self.client, "query", None)
        if query is None:
            return _UNSUPPORTED
        try:
            counts, answer.sum = query(field, low, high, bins)
        except KeyError:
            return _UNSUPPORTED
        if len(counts) != bins:
            raise ValueError(f"query() returned {len(counts)} counts for {bins} bins")
        for i, count in enumerate(counts):
            answer.counts[i] = count
        answer.count = sum(counts)
        return _DONE


def _guarded(python: Any, call: Callable[[_PythonTrainer], int]) -> int:
    trainer: _PythonTrainer = ffi.from_handle(python)
    try:
        return call(trainer)
    except Exception as error:  # must not cross C: run_many raises it again
        trainer.error = error
        return _FAILED


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_begin(
    python: Any, round: int, task: int, epochs: int, batch_size: int, max_steps: int, rate: float, mu: float, seed: int,
    work: Any,
) -> int:  # fmt: skip
    """Called by C when a plan's work begins."""

    def begin(trainer: _PythonTrainer) -> int:
        trainer.steps = None
        trainer.config = {
            "round": round, "task": task, "epochs": epochs, "batch_size": batch_size, "max_steps": max_steps,
            "learning_rate": rate, "prox_mu": mu, "seed": seed,
        }  # fmt: skip
        work.planned_steps = 1
        return _OK

    return _guarded(python, begin)


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_step(python: Any, work: Any) -> int:
    """Called by C for one piece of training."""
    return _guarded(python, lambda trainer: trainer.step(work))


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_evaluate(python: Any, work: Any) -> int:
    """Called by C for an evaluation."""
    return _guarded(python, lambda trainer: trainer.evaluate(work))


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_query(python: Any, field: int, low: float, high: float, bins: int, answer: Any) -> int:
    """Called by C for a query."""
    return _guarded(python, lambda trainer: trainer.query(field, low, high, bins, answer))


def run_many(
    devices: Sequence[Device], until: Callable[[], bool], timeout_s: float | None = None, slice_ms: int = 2
) -> None:
    """Run many devices in this thread until `until()`, which is asked every `slice_ms`; TimeoutError after `timeout_s`.

    An exception of a Python trainer is raised here, after its device has withdrawn.
    """
    pointers = ffi.new("fmb_device_t *[]", [d._c for d in devices])
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while not until():
        lib.fmb_fleet_run(pointers, len(devices), slice_ms)
        for device in devices:
            device._raise_error()
        if time.monotonic() >= deadline and not until():
            raise TimeoutError(f"not done after {timeout_s} s; devices are {[d.state for d in devices][:10]}")


def _baud(query: str) -> int:
    if not query:
        return 115200
    name, _, value = query.partition("=")
    if name != "baud" or value not in map(str, _RATES):
        raise ValueError(f"{query!r}: expected baud= and one of {', '.join(map(str, _RATES))}")
    return int(value)


def _text(what: str, value: str, longest: int) -> bytes:
    data = value.encode()
    if len(data) > longest or b"\0" in data:
        raise ValueError(f"{what} {value!r}: at most {longest} bytes")
    return data

# SPDX-License-Identifier: Apache-2.0
"""A desktop device: the real C client with its link and stream, trained in C or by a Python object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Unpack

from fedmote_device._fedmote import ffi, lib
from fedmote_device.counters import read_counters
from fedmote_device.flash import Flash
from fedmote_device.run import run_many
from fedmote_device.setup import (
    Memory,
    Options,
    complete,
    parse_address,
    use_c_trainer,
    use_python_trainer,
    write_settings,
)
from fedmote_device.trainers import CTrainer, NumPyClient

if TYPE_CHECKING:
    from fedmote_device.python_trainer import PythonTrainer

STATES: Final = (
    "offline", "greeting", "idle", "downloading", "checking", "working", "sealing", "offering", "uploading",
    "confirming", "holding", "refused",
)  # fmt: skip
"""Names of the client's states, as in fm_state_t."""


class Device:
    """One device on an MQTT broker, on a serial line, or on a link in memory.

    device_id: 1 to 63 of [A-Za-z0-9_.-].
    broker: mqtt://[user:password@]host[:port], with %xx for what a URL cannot hold; or
    serial:///dev/ttyUSB0?baud=115200; or "memory:". On "memory:" the caller is the other end and the clock: see poll(),
    deliver(), take(), wanted. On "memory:request" the device asks for chunks with a ChunkRequest, as on serial.
    trainer: a CTrainer or a NumPyClient.
    flash: keeps model and update over a power cut: the next Device made with it goes on where this one was.
    options: see Options in setup.py.

    Not for several threads at once. Raise ValueError for settings that the C library refuses.
    """

    def __init__(
        self,
        device_id: str,
        broker: str,
        *,
        federation: str,
        trainer: CTrainer | NumPyClient,
        flash: Flash | None = None,
        **options: Unpack[Options],
    ) -> None:
        settings = complete(options)
        self._c = ffi.new("fmb_device_t *")
        write_settings(self._c.settings, device_id, federation, parse_address(broker), settings)
        self._memory = Memory([flash])
        if flash is not None:
            self._c.settings.flash = flash._c
        self._python: PythonTrainer | None = None
        if isinstance(trainer, CTrainer):
            self.model = use_c_trainer(self._c, trainer, self._memory)
        else:
            self._python = use_python_trainer(self._c, trainer, settings["examples"], self._memory)
            self.model = self._python.model
        status = lib.fmb_device_init(self._c)
        if status != lib.FM_OK:
            raise ValueError(f"device {device_id!r}: the library refuses these settings (status {status})")

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
        """Round of the last plan that the device took up; 0 before the first."""
        return int(self._c.client.plan.round)

    @property
    def chunk(self) -> int:
        """Index of the next chunk of the download or upload."""
        return int(self._c.client.next_chunk)

    @property
    def steps(self) -> tuple[int, int]:
        """Training steps done and planned, of the last plan that the device took up."""
        return int(self._c.client.work.steps), int(self._c.client.work.planned_steps)

    @property
    def counters(self) -> dict[str, int]:
        """The client's counters (fm_client_counters_t)."""
        return read_counters(self._c.client.counters)

    @property
    def link_counters(self) -> dict[str, int]:
        """The link's counters (fm_mqtt_counters_t or fm_serial_counters_t)."""
        return read_counters((self._c.serial if self._c.settings.baud else self._c.mqtt).counters)

    @property
    def restored(self) -> int:
        """Number of model chunks (and 1 for the update) that the flash held when the device was made."""
        return int(self._c.keep.restored)

    @property
    def durable(self) -> int:
        """Number of the present plan's model chunks that the flash holds."""
        return int(self._c.keep.chunks)

    @property
    def storage_errors(self) -> int:
        """Number of flash operations that failed, and of models that did not fit."""
        return int(self._c.keep.errors)

    @property
    def layout_crc32(self) -> int:
        """CRC-32 of the shared tensors' layout, as in Hello."""
        return int(lib.fmb_device_layout_crc32(self._c))

    @property
    def step_limit(self) -> int:
        """Steps after which the C trainer waits for the closing notice, as a slow device would; 0: no limit."""
        return int(self._c.step_limit)

    @step_limit.setter
    def step_limit(self, steps: int) -> None:
        self._c.step_limit = steps

    def set_step_limits(self, limits: Sequence[int]) -> None:
        """Set step_limit for each round. The first entry is for round 0. Each is read when its round's work begins."""
        array = ffi.new("uint32_t[]", list(limits))
        self._memory.append(array)
        self._c.step_limits, self._c.limit_count = array, len(limits)

    @property
    def finish_at_limit(self) -> bool:
        """Whether the device sends its update at step_limit, instead of waiting for the closing notice."""
        return bool(self._c.finish_at_limit)

    @finish_at_limit.setter
    def finish_at_limit(self, on: bool) -> None:
        self._c.finish_at_limit = on

    def poll(self, now_ms: int | None = None) -> int:
        """Do one bounded piece of work. Return the milliseconds to rest if nothing arrives.

        now_ms: None for the real clock. run() and run_many() call this themselves.
        """
        wait: int = lib.fmb_device_poll(self._c, lib.fmb_now_ms() if now_ms is None else now_ms & 0xFFFFFFFF)
        self._raise_error()
        return wait

    def deliver(self, message: bytes, now_ms: int) -> int:
        """Poll with a message from the server ("memory:" only). It is lost while the link is cut."""
        if not self._c.settings.memory:
            raise ValueError("deliver() is for a device on memory:")
        wait: int = lib.fmb_device_deliver(
            self._c, ffi.from_buffer("uint8_t[]", message), len(message), now_ms & 0xFFFFFFFF
        )
        self._raise_error()
        return wait

    def take(self) -> bytes | None:
        """Return the message that waits for the server, or None. The device can then make the next ("memory:" only)."""
        size = lib.fmb_mailbox_waiting(ffi.addressof(self._c.mailbox))
        if size == 0:
            return None
        out = ffi.new("uint8_t[]", size)
        if lib.fmb_mailbox_take(ffi.addressof(self._c.mailbox), out) != lib.FM_OK:
            return None
        return bytes(ffi.buffer(out))

    @property
    def wanted(self) -> tuple[int, int] | None:
        """(version, index) of the model chunk to deliver next, None if the client waits for none ("memory:" only)."""
        mailbox = self._c.mailbox
        return (int(mailbox.fetch_version), int(mailbox.fetch_index)) if mailbox.fetching else None

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait on between polls; -1 while there is none."""
        return int(lib.fmb_device_fd(self._c, ffi.new("bool *")))

    def _raise_error(self) -> None:
        """Raise the exception of a Python trainer, once."""
        if self._python is not None and self._python.error is not None:
            error, self._python.error = self._python.error, None
            raise error

    def cut_link(self) -> None:
        """Break the link until restore_link(), as a tunnel does: the broker gets no DISCONNECT."""
        lib.fmb_device_cut(self._c)

    def restore_link(self) -> None:
        """Let the link connect again."""
        lib.fmb_device_restore(self._c)

    def set_state(self, battery: int = 255, flags: int = 0) -> None:
        """Tell the server the device's state, which decides whether it is selected.

        battery: percent, 255 if unknown. flags: bit 0 charging, 1 metered network, 2 busy.
        """
        lib.fm_client_set_device_state(ffi.addressof(self._c.client), battery, flags)

    def withdraw(self, reason: int = 0) -> None:
        """Stop the present round's work and tell the server. reason: a member of `fedmote.wire.WithdrawReason`."""
        lib.fm_client_withdraw(ffi.addressof(self._c.client), reason)

    def close(self) -> None:
        """Send DISCONNECT and close, so that the broker publishes no will."""
        lib.fmb_device_close(self._c)

    def run(self, until: Callable[[Device], bool], timeout_s: float = 60.0) -> None:
        """Run until `until(self)` is true. Raise TimeoutError after `timeout_s`."""
        run_many([self], lambda: until(self), timeout_s)

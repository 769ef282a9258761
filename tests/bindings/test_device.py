# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every case talks to the same hand-made server at the top.
"""The real C client through the bindings, on a link in memory, with the test's clock and a server of a few lines."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fold_input import Chunks
from numpy.typing import NDArray

from fedmote_device import CTrainer, Device, codec, field_number, kernels, run_many

CHUNK = 50
Floats = NDArray[np.float32]


class Server:
    """The server of one round for one device: it answers the device's messages."""

    def __init__(self, device: Device, model: Floats, **plan: Any) -> None:
        self.device = device
        self.model = model
        self.now = 0
        self.log: list[str] = []
        self.begin: codec.Fields = {}
        self.chunks: dict[int, tuple[float, bytes]] = {}
        self.evaluation: codec.Fields = {}
        self.answer: codec.Fields = {}
        self.withdrawn: int | None = None
        self.grant = True
        self.commit = True
        self.committed = False
        self.plan = {
            "round": 1,
            "model_version": 1,
            "model_elements": model.size,
            "model_crc32": zlib.crc32(model.tobytes()),
            "model_chunk_elements": CHUNK,
            "update_chunk_elements": CHUNK,
            "slot_granted": True,
            "batch_size": 8,
        } | plan

    def say(self, name: str, **fields: Any) -> None:
        self.device.deliver(codec.encode(name, fields), self.now)

    def chunk(self, index: int) -> None:
        data = self.model[index * CHUNK : (index + 1) * CHUNK].tobytes()
        self.say("model_chunk", version=1, index=index, data=data)

    def status(self, state: int) -> None:
        received = bytearray(4)
        for index in self.chunks:
            received[index // 8] |= 1 << index % 8
        self.say("update_status", round=1, crc32=self.begin["crc32"], state=state, received=bytes(received))

    def hear(self, message: bytes) -> None:
        decoded = codec.decode(message)
        assert decoded is not None
        name, fields = decoded
        self.log.append(name)
        answer = getattr(self, f"on_{name}", None)
        if answer is not None:
            answer(fields)

    def on_hello(self, fields: codec.Fields) -> None:
        assert fields["layout_crc32"] == self.device.layout_crc32
        held = bool(self.begin)
        self.say("welcome", protocol=1, boot=fields["boot"], open_round=1 if held else 0)
        if not held:
            self.say("plan", **self.plan)

    def on_chunk_request(self, fields: codec.Fields) -> None:
        self.chunk(fields["index"])

    def on_update_begin(self, fields: codec.Fields) -> None:
        self.begin = fields
        if self.grant:
            self.status(0)

    def on_update_chunk(self, fields: codec.Fields) -> None:
        self.chunks[fields["index"]] = (fields["scale"], fields["data"])

    def on_update_end(self, fields: codec.Fields) -> None:
        if len(self.chunks) < fields["chunks"]:
            self.status(2)
            return
        assert zlib.crc32(self.data) == fields["crc32"] == self.begin["crc32"]
        self.finish(fields["crc32"])

    def on_evaluation(self, fields: codec.Fields) -> None:
        self.evaluation = fields
        self.finish(fields["seed"])

    def on_answer(self, fields: codec.Fields) -> None:
        self.answer = fields
        self.finish(fields["seed"])

    def on_withdraw(self, fields: codec.Fields) -> None:
        self.withdrawn = fields["reason"]

    def finish(self, crc32: int) -> None:
        self.say("receipt", round=1, crc32=crc32)
        if self.commit:
            self.say("commit", round=1, model_version=2)
            self.committed = True

    @property
    def data(self) -> bytes:
        return b"".join(data for _, (_, data) in sorted(self.chunks.items()))

    def step(self) -> None:
        """Poll once and answer the device's message. The clock advances by as long as the device would sleep."""
        wait = self.device.poll(self.now)
        message = self.device.take()
        if message is not None:
            self.hear(message)
        elif self.device.wanted is not None:
            self.chunk(self.device.wanted[1])
        else:
            self.now += min(wait, 1000)

    def run(self, until: Any, steps: int = 20_000) -> None:
        for _ in range(steps):
            if until():
                return
            self.step()
        pytest.fail(f"not there after {steps} steps: {self.device.state}, {self.log[-10:]}")

    def updated(self) -> Floats:
        """The trained model that the update stands for."""
        encoding = self.begin["encoding"]
        scales = np.array([scale for _, (scale, _) in sorted(self.chunks.items())], np.float32)
        base = self.model if self.begin["kind"] == 1 else None
        total, weight = np.zeros(self.model.size), np.zeros(self.model.size)
        chunks = Chunks(self.data, encoding, scales, self.begin["chunk_elements"], None, None)
        assert kernels.fold(total, weight, base, chunks, 1.0) == kernels.FOLDED
        return kernels.finish(total, weight, self.model)


def data(examples: int = 40) -> tuple[Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, examples)
    return (rng.standard_normal((examples, 4)) + 2 * np.eye(4)[y]).astype(np.float32), y


def model(seed: int = 2) -> Floats:
    return (np.random.default_rng(seed).standard_normal(4 * 8 + 8 + 8 * 3 + 3) * 0.3).astype(np.float32)


def native(**options: Any) -> Device:
    x, y = data()
    settings: dict[str, Any] = {"federation": "test", "trainer": CTrainer((4, 8, 3), x, y)}
    return Device("d1", "memory:", **(settings | options))


class Linear:
    """A NumPyClient that moves every parameter by one in each of five steps."""

    def __init__(self, steps: int = 5, fail_at: int | None = None) -> None:
        self.steps = steps
        self.fail_at = fail_at
        self.config: dict[str, float | int] = {}

    def get_parameters(self, config: dict[str, float | int]) -> list[Floats]:
        return [np.zeros((6, 10), np.float32), np.zeros(10, np.float32)]

    def fit(self, parameters: list[Floats], config: dict[str, float | int]) -> Iterator[tuple[Any, ...]]:
        self.config = config
        for step in range(self.steps):
            if step == self.fail_at:
                raise RuntimeError("out of memory")
            parameters = [p + 1 for p in parameters]
            yield parameters, 10 * (step + 1), {"loss": 1.0 / (step + 1), "planned_steps": self.steps}

    def evaluate(self, parameters: list[Floats], config: dict[str, float | int]) -> tuple[float, int, dict[str, float]]:
        assert parameters[0].shape == (6, 10)
        return float(parameters[1][0]), 40, {"accuracy": 0.75}


class AllAtOnce(Linear):
    """The same client without a generator."""

    def fit(self, parameters: list[Floats], config: dict[str, float | int]) -> Any:
        *_, last = super().fit(parameters, config)
        return last


# ---- whole rounds ----


@pytest.mark.parametrize("broker", ["memory:", "memory:request"])
@pytest.mark.parametrize("encoding", ["float32", "int8"])
@pytest.mark.parametrize("delta", [False, True])
def test_a_round_brings_back_what_was_trained(broker: str, encoding: str, delta: bool) -> None:
    x, y = data()
    trainer = CTrainer((4, 8, 3), x, y)
    device = Device("d1", broker, federation="test", trainer=trainer, encoding=encoding, delta=delta)
    server = Server(device, model(), encodings=5, kinds=3, epochs=2)
    server.run(lambda: server.committed and device.state == "idle")
    assert ("chunk_request" in server.log) == (broker == "memory:request")
    assert server.begin["encoding"] == {"float32": 0, "int8": 2}[encoding]
    assert server.begin["kind"] == delta
    assert (server.begin["examples"], server.begin["steps"], server.begin["planned_steps"]) == (40, 10, 10)
    tolerance = 1e-6 if encoding == "float32" else 2 * np.abs(device.model).max() / 127
    np.testing.assert_allclose(server.updated(), device.model, atol=tolerance)
    assert np.abs(device.model - server.model).max() > 0.01
    assert device.counters["updates"] == 1
    assert device.steps == (10, 10)


def test_an_evaluation_reports_loss_and_accuracy() -> None:
    device = native()
    server = Server(device, model(), task=1)
    server.run(lambda: server.committed)
    x, y = data()
    kernel0, rest = server.model[:32].reshape(4, 8), server.model[32:]
    hidden = np.maximum(x @ kernel0 + rest[:8], 0)
    logits = hidden @ rest[8:32].reshape(8, 3) + rest[32:]
    assert server.evaluation["examples"] == 40
    assert server.evaluation["correct"] == int((logits.argmax(axis=1) == y).sum())


def query(name: str, low: float, high: float, bins: int) -> dict[str, Any]:
    field = field_number(name)
    return {"task": 2, "seed": 9, "query_field": field, "query_low": low, "query_high": high, "query_bins": bins}


def test_a_query_counts_labels() -> None:
    device = native()
    server = Server(device, model(), **query("label", -0.5, 2.5, 3))
    server.run(lambda: server.committed and device.state == "idle")
    _, y = data()
    assert server.answer["counts"] == np.bincount(y, minlength=3).tolist()
    assert (server.answer["count"], server.answer["sum"], server.answer["seed"]) == (40, y.sum(), 9)
    assert server.log == ["hello", "answer"]  # and no model came


def test_a_query_counts_features_in_bins() -> None:
    x = np.random.default_rng(7).normal(size=(40, 12)).astype(np.float32)
    device = Device("d1", "memory:", federation="test", trainer=CTrainer((12, 3), x, data()[1]))
    server = Server(device, np.zeros(39, np.float32), **query("feature11", -2.0, 2.0, 32))
    server.run(lambda: server.committed)
    clipped = np.clip(x[:, 11], -2, 2)
    assert server.answer["counts"] == np.histogram(clipped, 32, (-2, 2))[0].tolist()
    assert server.answer["sum"] == pytest.approx(clipped.sum(), abs=1e-4)


def test_a_query_for_an_unknown_field_is_withdrawn_from() -> None:
    server = Server(native(), model(), **query("feature4", 0, 1, 4))
    server.run(lambda: server.withdrawn is not None)
    assert "answer" not in server.log


class Queried(Linear):
    """A client that answers queries for one field."""

    def query(self, field: int, low: float, high: float, bins: int) -> tuple[list[int], float]:
        number = {field_number("temperature"): 3}[field]
        return [number] * bins, low + high


def test_a_numpy_client_answers_queries() -> None:
    device = Device("d1", "memory:", federation="test", trainer=Queried())
    server = Server(device, np.zeros(70, np.float32), **query("temperature", -1.0, 5.5, 4))
    server.run(lambda: server.committed)
    assert (server.answer["counts"], server.answer["count"], server.answer["sum"]) == ([3] * 4, 12, 4.5)


@pytest.mark.parametrize(("trainer", "field"), [(Linear, "temperature"), (Queried, "pressure")])
def test_a_numpy_client_without_the_field_withdraws(trainer: type[Linear], field: str) -> None:
    device = Device("d1", "memory:", federation="test", trainer=trainer())
    server = Server(device, np.zeros(70, np.float32), **query(field, 0, 1, 4))
    server.run(lambda: server.withdrawn is not None)
    assert "answer" not in server.log


def test_hello_tells_the_free_memory() -> None:
    x, y = data()
    device = Device("d1", "memory:", federation="test", trainer=CTrainer((4, 8, 3), x, y), free_memory_kib=192)
    device.poll(0)
    message = device.take()
    assert message is not None
    name, fields = codec.decode(message) or ("", {})
    assert (name, fields["free_memory_kib"]) == ("hello", 192)


def test_a_broken_link_costs_no_chunk_twice() -> None:
    device = native()
    server = Server(device, model())
    server.run(lambda: len(server.chunks) == 1)
    device.cut_link()
    device.poll(server.now)
    assert not device.online
    assert device.take() is None
    device.deliver(codec.encode("commit", round=1, model_version=2), server.now)  # does not arrive
    device.restore_link()
    server.run(lambda: server.committed)
    assert server.log.count("hello") == 2
    assert device.counters["chunks_resumed_out"] >= 1
    assert device.counters["connections"] == 2
    np.testing.assert_array_equal(server.updated(), device.model)


def test_the_update_is_kept_until_the_commit() -> None:
    device = native()
    server = Server(device, model())
    server.commit = False
    server.run(lambda: device.state == "holding")
    kept = server.data
    server.chunks.clear()  # the server crashed before its commit, and forgot
    server.commit = True
    device.cut_link()
    device.poll(server.now)
    device.restore_link()
    server.run(lambda: server.committed)
    assert server.data == kept


def test_a_closing_notice_makes_a_partial_update_of_a_native_device() -> None:
    device = native()
    device.step_limit = 3
    server = Server(device, model(), epochs=4)
    server.run(lambda: device.steps == (3, 20))
    server.say("closing_notice", round=1, remaining_ms=5000)
    server.run(lambda: server.committed)
    assert (server.begin["steps"], server.begin["planned_steps"], server.begin["examples"]) == (3, 20, 24)
    assert device.counters["partial_updates"] == 1


# ---- training in Python ----


@pytest.mark.parametrize("client", [Linear(), AllAtOnce()])
def test_a_numpy_client_trains(client: Linear) -> None:
    device = Device("d1", "memory:", federation="test", trainer=client, examples=50)
    server = Server(device, np.arange(70, dtype=np.float32), epochs=3, learning_rate=0.5)
    server.run(lambda: server.committed)
    np.testing.assert_array_equal(server.updated(), server.model + 5)
    assert server.begin["examples"] == 50
    assert server.begin["loss"] == np.float32(0.2)
    assert client.config["epochs"] == 3
    assert client.config["learning_rate"] == 0.5


def test_a_numpy_client_that_yields_can_be_cut_short() -> None:
    device = Device("d1", "memory:", federation="test", trainer=Linear(steps=1000), examples=10_000)
    server = Server(device, np.zeros(70, np.float32))
    server.run(lambda: device.steps[0] >= 2)
    server.say("closing_notice", round=1, remaining_ms=5000)
    server.run(lambda: server.committed)
    steps = server.begin["steps"]
    assert 2 <= steps < 1000
    assert (server.begin["planned_steps"], server.begin["examples"]) == (1000, 10 * steps)
    np.testing.assert_array_equal(server.updated(), np.full(70, steps, np.float32))


def test_a_numpy_client_evaluates() -> None:
    device = Device("d1", "memory:", federation="test", trainer=Linear())
    server = Server(device, np.full(70, 0.25, np.float32), task=1)
    server.run(lambda: server.committed)
    assert server.evaluation["loss"] == 0.25
    assert (server.evaluation["correct"], server.evaluation["examples"]) == (30, 40)


def test_an_exception_in_python_withdraws_and_is_raised() -> None:
    device = Device("d1", "memory:", federation="test", trainer=Linear(fail_at=2))
    server = Server(device, np.zeros(70, np.float32))
    with pytest.raises(RuntimeError, match="out of memory"):
        server.run(lambda: server.withdrawn is not None)
    server.run(lambda: server.withdrawn is not None)
    assert server.withdrawn == 5
    assert device.state == "idle"


# ---- what gates taking part ----


def test_the_application_withdraws_and_tells_its_state() -> None:
    device = native()
    server = Server(device, model())
    server.run(lambda: device.state == "downloading")
    device.withdraw(3)
    device.set_state(battery=20, flags=2)
    server.run(lambda: server.withdrawn is not None and "device_state" in server.log)
    assert server.withdrawn == 3
    assert device.counters["withdrawals"] == 1


def test_noise_is_dropped_and_counted() -> None:
    device = native()
    server = Server(device, model())
    server.run(lambda: device.state == "downloading")
    device.deliver(b"no message", server.now)
    device.deliver(codec.encode("update_status", round=9), server.now)
    assert device.state == "downloading"
    assert device.counters["malformed"] == 1
    assert device.counters["unexpected"] >= 1
    server.run(lambda: server.committed)


def test_the_clock_may_wrap() -> None:
    device = native()
    server = Server(device, model(), slot_granted=False)
    server.now = 2**32 - 3000
    server.grant = False
    server.run(lambda: server.now > 2**32 + 20_000)
    assert server.log.count("update_begin") > 2
    server.grant = True
    server.run(lambda: server.committed)


def test_run_many_gives_up_with_the_states() -> None:
    with pytest.raises(TimeoutError, match="greeting"):
        run_many([native()], lambda: False, timeout_s=0)
    device = native()
    device.run(lambda d: d.state == "greeting", timeout_s=60)
    assert device.fileno() == -1
    device.close()
    device.poll()
    assert device.state == "offline"


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"broker": "http://host"}, "mqtt://"),
        ({"broker": "mqtt://"}, "mqtt://"),
        ({"device_id": "x" * 64}, "at most 63"),
        ({"device_id": "a\0b"}, "at most 63"),
        ({"device_id": "a/b", "broker": "mqtt://127.0.0.1"}, "refuses"),
        ({"federation": "a b", "broker": "mqtt://127.0.0.1"}, "refuses"),
        ({"encoding": "float16"}, "float32, int8"),
        ({"trainer": CTrainer((4,), *data())}, "2 to 5 widths"),
        ({"trainer": CTrainer((5, 3), *data())}, "features"),
        ({"trainer": CTrainer((4, 2), *data())}, "labels 0 to 2"),
        ({"trainer": CTrainer((4, 300), data()[0], data()[1] + 256)}, "labels"),
        ({"trainer": CTrainer((4, 3), data()[0], data()[1] - 1)}, "labels -1"),
        ({"trainer": CTrainer((4, 3), data()[0], data()[1][:5])}, "shapes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    x, y = data()
    settings: dict[str, Any] = {
        "device_id": "d1",
        "broker": "memory:",
        "federation": "test",
        "trainer": CTrainer((4, 3), x, y),
    }
    settings |= options
    with pytest.raises(ValueError, match=message):
        Device(settings.pop("device_id"), settings.pop("broker"), **settings)


class Many:
    """Has the 122 arrays of a ResNet-18, by name. Adds its position to each."""

    def get_parameters(self, config: Any) -> dict[str, Any]:
        return {f"layer{i}.0.downsample.1.num_batches_tracked": np.zeros((), np.int64) for i in range(122)}

    def fit(self, parameters: dict[str, Any], config: Any) -> tuple[dict[str, Any], Any, Any]:
        return {name: np.int64(value + i) for i, (name, value) in enumerate(parameters.items())}, np.float64(5), None

    def evaluate(self, parameters: Any, config: Any) -> tuple[float, int, dict[str, float]]:
        raise AssertionError("the server asked for training only")


def test_a_model_has_as_many_named_tensors_as_python_likes() -> None:
    device = Device("d1", "memory:", federation="test", trainer=Many())
    server = Server(device, np.ones(122, np.float32))
    server.run(lambda: server.committed)
    np.testing.assert_array_equal(server.updated(), 1 + np.arange(122, dtype=np.float32))
    assert server.begin["examples"] == 5


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned NoneType; expected"),
        (([np.zeros((7, 10))], 5, {}), "found 1; missing: 'parameter1'"),
        (([np.zeros((10, 6)), np.zeros(10)], 5, {}), "shape"),
        (({}, 5, {}), "expected a sequence of arrays"),
        (([np.zeros((6, 10)), np.zeros(10)], 0, {}), "examples 0; expected a whole number from 1"),
    ],
)
def test_a_fit_that_makes_no_sense_is_withdrawn_from_and_raised(result: Any, message: str) -> None:
    class Bad(Linear):
        def fit(self, parameters: Any, config: Any) -> Any:
            return result

    device = Device("d1", "memory:", federation="test", trainer=Bad())
    server = Server(device, np.zeros(70, np.float32))
    with pytest.raises((TypeError, ValueError), match=message):
        server.run(lambda: server.withdrawn is not None)
    server.run(lambda: server.withdrawn is not None)
    assert server.withdrawn == 5


def test_each_life_of_a_device_has_another_seed() -> None:
    """Otherwise a device believes a Welcome and a plan that were queued for its former life."""
    seeds = {int(Device("d1", "memory:", federation="test", trainer=Linear())._c.settings.seed) for _ in range(8)}
    assert len(seeds) == 8


def test_only_a_link_in_memory_takes_messages() -> None:
    x, y = data()
    device = Device("d1", "mqtt://127.0.0.1:1", federation="test", trainer=CTrainer((4, 3), x, y))
    with pytest.raises(ValueError, match="memory:"):
        device.deliver(b"", 0)
    assert device.link_counters["connections"] == 0
    assert device.take() is None
    assert device.wanted is None

# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every case needs the same nested layout and its hand-made uploads.
"""Classes of devices that hold a slice of each layer of the one model (docs/submodels.md)."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import submodels

from fedmote.config.settings import load
from fedmote.datasets import digits as data
from fedmote.errors import ConfigError
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.limits import Limits
from fedmote.fleet.served_models import CLASS_SHIFT
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova
from fedmote.learning.strategy import Strategy
from fedmote.model.layout import Layout, SubLayout, Tensor, dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote.testing.federation import RunningFederation
from fedmote.wire import codec
from fedmote.wire.RefusalReason import RefusalReason
from fedmote_device import CTrainer
from fedmote_device import codec as device_codec

SHARES = (1.0, 0.5, 0.25)
LAYOUT = dense((6, 7, 5, 3), SHARES)
CLASSES = LAYOUT.classes()
CHUNK = 16
START = np.random.default_rng(3).normal(size=LAYOUT.elements).astype(np.float32)


def test_slices_are_those_of_numpy() -> None:
    """Hidden widths are ceil(share * width), inputs and outputs stay; the layout is that of such a device."""
    whole = LAYOUT.arrays(START)
    for one, (first, second) in zip(CLASSES, [(7, 5), (4, 3), (2, 2)], strict=True):
        wanted = [
            whole["dense0.kernel"][:, :first], whole["dense0.bias"][:first],
            whole["dense1.kernel"][:first, :second], whole["dense1.bias"][:second],
            whole["dense2.kernel"][:second], whole["dense2.bias"],
        ]  # fmt: skip
        assert np.array_equal(one.cut(START), np.concatenate([part.ravel() for part in wanted]))
        alone = dense((6, first, second, 3))
        assert (one.elements, one.crc32) == (alone.elements, alone.crc32)


def spoken(ranges: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(first, first + count) for first, count in ranges.tolist()])


def test_a_share_is_of_the_number_that_is_meant_and_not_of_its_neighbour_in_binary() -> None:
    """A share of a width has no rounding error: in floating point 0.55 * 100 is above 55 and 0.28 * 25 above 7."""
    assert dense((4, 100, 2), (1.0, 0.55)).classes()[1].layout.tensors[1].shape == (55,)
    assert dense((4, 25, 2), (1.0, 0.28)).classes()[1].layout.tensors[1].shape == (7,)
    assert dense((4, 25, 2), (1.0, 0.29)).classes()[1].layout.tensors[1].shape == (8,)


def test_ranges_are_merged_and_composed() -> None:
    """Ranges ascend and are disjoint. A partial update of a sub-model is also one of the whole model's ranges."""
    places = np.arange(LAYOUT.elements, dtype=np.float32)
    for one in CLASSES[1:]:
        ranges = one.ranges(None)
        assert ranges is not None
        assert np.array_equal(spoken(ranges), one.cut(places))
        assert (ranges[1:, 0] > ranges[:-1].sum(1)).all()  # neighbours are one
        own = np.array([[1, 5], [9, one.elements - 9]], np.uint32)
        composed = one.ranges(own)
        assert composed is not None
        assert np.array_equal(spoken(composed), one.cut(places)[spoken(own)])
    assert CLASSES[0].ranges(None) is None


def test_tensors_that_say_which_axes_scale() -> None:
    """A tensor may name the axes that scale, such as a convolution's channels; otherwise it stays whole."""
    layout = Layout((Tensor("conv", (3, 2, 4), (False, False, True)), Tensor("rest", (5,))), (1.0, 0.5))
    sub = layout.classes()[1]
    model = np.arange(29, dtype=np.float32)
    assert np.array_equal(sub.cut(model), np.concatenate([model[:24].reshape(3, 2, 4)[..., :2].ravel(), model[24:]]))


class Devices:
    """Devices of all classes; the test supplies every message."""

    def __init__(
        self, store: Store | None = None, strategy: Strategy | None = None, limits: Limits | None = None, **policy: Any
    ) -> None:
        self.said: list[tuple[str, str, Any]] = []
        self.published: dict[int, list[bytes]] = {}
        self.fleet = Fleet(LAYOUT, limits or Limits())
        chosen = Policy(
            **{"chunk_elements": CHUNK, "devices": 3, "goal": 1.0, "soft_deadline_s": 10.0, "hard_deadline_s": 20.0}
            | policy
        )
        self.store = store or Store(":memory:", LAYOUT, START)
        setup = RoundSetup(strategy or FedAvg(), Training(), chosen)
        outlets = Outlets(lambda message: None, self.publish)
        self.rounds, _ = start_rounds(self.fleet, self.store, setup, outlets)

    def publish(self, version: int, chunks: list[bytes]) -> None:
        if chunks:
            self.published[version] = chunks
        else:
            del self.published[version]

    def send(self, device: str, message: bytes) -> None:
        body = codec.decode(message)
        assert body is not None
        self.said.append((device, type(body).__name__, body))

    def hear(self, device: str, name: str, **fields: Any) -> None:
        self.fleet.receive(device, codec.encode(name, **fields), 0.0, self.send)

    def come(self, device: str, one: SubLayout) -> None:
        self.hear(device, "Hello", device_id=device, elements=one.elements, layout_crc32=one.crc32)

    def upload(
        self, device: str, size: int, values: np.ndarray, examples: int, *, scale: float = 0.0, most: int = 10**6,
        **fields: Any,
    ) -> None:  # fmt: skip
        """Offer an update of round 1 and send its first `most` chunks; scale: of int8 ones (scales()).

        fields: further ones of UpdateBegin.
        """
        data = values.astype("i1" if scale else "<f4")
        crc32 = zlib.crc32(data.tobytes())
        offer: dict[str, Any] = {
            "round": 1, "base_version": size << CLASS_SHIFT | 1, "crc32": crc32, "elements": data.size,
            "chunk_elements": CHUNK, "examples": examples, "steps": 1, "planned_steps": 1,
            "encoding": 2 if scale else 0, "ranges": (),
        }  # fmt: skip
        begin = device_codec.encode("update_begin", **(offer | fields))
        self.fleet.receive(device, begin, 0.0, self.send)
        chunks = -(-data.size // CHUNK)
        for i in range(min(chunks, most)):
            part = data[CHUNK * i : CHUNK * (i + 1)].tobytes()
            self.hear(device, "UpdateChunk", round=1, index=i, scale=scale * (1 + i % 3), data=part)
        if most >= chunks:
            self.hear(device, "UpdateEnd", round=1, chunks=chunks, crc32=crc32)


def scales(scale: float, elements: int) -> np.ndarray:
    """Return what each element of an update is multiplied by: not every chunk has the same scale."""
    return (scale * (1 + np.arange(elements) // CHUNK % 3) if scale else np.ones(elements)).astype(np.float32)


def mean(updates: list[tuple[int, np.ndarray, int]]) -> np.ndarray:
    """HeteroFL's aggregation: each element is averaged over those who hold it. (class, its first weights, examples)."""
    total, weight = np.zeros(START.size), np.zeros(START.size)
    for size, values, examples in updates:
        places = CLASSES[size].cut(np.arange(START.size, dtype=np.float32)).astype(int)[: values.size]
        total[places] += examples * values.astype(np.float64)
        weight[places] += examples
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), START)


@pytest.mark.parametrize("buffer", [0, 3])
@pytest.mark.parametrize("scale", [0.0, 0.01])
@pytest.mark.parametrize("delta", [False, True])
def test_a_mixed_round_is_heterofl(buffer: int, scale: float, delta: bool) -> None:
    """Three classes, synchronous and asynchronous, weights and deltas, float32 and int8, to 1e-6."""
    devices = Devices(buffer=buffer)
    rng = np.random.default_rng(8)
    for size, one in enumerate(CLASSES):
        devices.come("abc"[size], one)
    devices.rounds.tick(0.0)
    plans = {device: body for device, name, body in devices.said if name == "Plan"}
    updates = []
    for size, one in enumerate(CLASSES):
        plan = plans["abc"[size]]
        cut = one.cut(START)
        assert (plan.ModelVersion(), plan.ModelElements()) == (size << CLASS_SHIFT | 1, one.elements)
        assert plan.ModelCrc32() == zlib.crc32(cut.tobytes())
        values = rng.integers(-127, 128, one.elements).astype(np.float32) if scale else rng.normal(size=one.elements)
        values = values.astype(np.float32)
        found = values * scales(scale, one.elements)
        updates.append((size, found + cut if delta else found, size + 2))
        devices.upload("abc"[size], size, values, examples=size + 2, kind=int(delta), scale=scale)
    devices.rounds.tick(1.0)
    assert devices.store.models.latest()[1] == 1
    assert np.abs(devices.rounds.model - mean(updates)).max() < 1e-6
    assert sorted(devices.published) == [size << CLASS_SHIFT | 2 for size in range(3)]  # and no other


def test_fednova_over_three_classes() -> None:
    """Each element moves along the mean direction of the devices that hold it, whatever their step counts."""
    devices = Devices(strategy=FedNova())
    rng = np.random.default_rng(9)
    for size, one in enumerate(CLASSES):
        devices.come("abc"[size], one)
    devices.rounds.tick(0.0)
    direction, examples = np.zeros(START.size), np.zeros(START.size)
    for size, one in enumerate(CLASSES):
        places = one.cut(np.arange(START.size, dtype=np.float32)).astype(int)
        values = rng.normal(size=one.elements).astype(np.float32)
        direction[places] += (size + 2) * (values - START[places].astype(np.float64)) / (size + 1)
        examples[places] += size + 2
        devices.upload("abc"[size], size, values, examples=size + 2, steps=size + 1, planned_steps=size + 1)
    devices.rounds.tick(1.0)
    steps = (2 * 1 + 3 * 2 + 4 * 3) / (2 + 3 + 4)
    # Where the device with the whole model is alone, that many times its one step would be above LONGEST.
    alone = examples == 2
    wanted = START + np.where(alone, min(steps, FedNova.LONGEST), steps) * direction / examples
    assert devices.store.models.latest()[1] == 1
    assert np.abs(devices.rounds.model - wanted).max() < 1e-6


def test_what_came_of_a_cut_off_upload_counts() -> None:
    """The first two chunks of a sub-model count at the hard deadline."""
    devices = Devices(devices=2)
    devices.come("a", CLASSES[0])
    devices.come("b", CLASSES[1])
    devices.rounds.tick(0.0)
    whole, part = np.ones(CLASSES[0].elements, np.float32), np.full(CLASSES[1].elements, 3, np.float32)
    devices.upload("a", 0, whole, examples=1)
    devices.upload("b", 1, part, examples=3, most=2)
    devices.rounds.tick(10.0)
    devices.rounds.tick(20.0)
    assert devices.store.models.latest()[1] == 1
    assert np.abs(devices.rounds.model - mean([(0, whole, 1), (1, part[: 2 * CHUNK], 3)])).max() < 1e-6


@pytest.mark.parametrize("most", [1, 10**6])
@pytest.mark.parametrize("scale", [0.0, 0.01])
def test_a_sub_model_may_speak_for_a_part_of_itself(scale: float, most: int) -> None:
    """An update may cover ranges of its sub-model, such as without a local tensor; all or the arrived part counts."""
    devices = Devices(devices=1)
    one = CLASSES[1]
    devices.come("a", one)
    devices.rounds.tick(0.0)
    own = [(2, 9), (20, 1), (25, one.elements - 25)]
    speaks = spoken(np.array(own))
    values = np.random.default_rng(4).integers(-127, 128, speaks.size).astype(np.float32)
    devices.upload("a", 1, values, examples=5, kind=1, scale=scale, most=most, ranges=own)
    devices.rounds.tick(10.0)
    devices.rounds.tick(20.0)
    assert devices.store.models.latest()[1] == 1
    places = one.cut(np.arange(START.size, dtype=np.float32)).astype(int)[speaks][: CHUNK * most]
    wanted = START.astype(np.float64)
    wanted[places] += (values * scales(scale, speaks.size))[: CHUNK * most]
    assert np.abs(devices.rounds.model - wanted).max() < 1e-5  # of values up to 381


@pytest.mark.parametrize(
    ("ranges", "elements", "said"),
    [
        ([(0, 5), (4, 3)], 8, "its ranges overlap"),
        ([(0, 5), (9, 0)], 5, "its ranges overlap, are empty"),
        ([(0, 5), (CLASSES[1].elements - 1, 2)], 7, "leave the model"),  # of its class; the whole one has room
        ([(0, 5), (9, 2)], 8, "it says 8 elements, its ranges hold 7"),
        ([(2 * i, 1) for i in range(257)], 257, "257 ranges; at most 256"),
        ([], CLASSES[0].elements, f"its ranges hold {CLASSES[1].elements}"),
    ],
)
def test_ranges_that_do_not_fit_the_class_are_refused(ranges: list[tuple[int, int]], elements: int, said: str) -> None:
    """Ranges are checked against the vector of the device's class, not of the whole model."""
    devices = Devices(devices=1)
    devices.come("a", CLASSES[1])
    devices.rounds.tick(0.0)
    devices.upload("a", 1, np.ones(elements, np.float32), examples=1, ranges=ranges)
    _, name, refusal = next(one for one in devices.said if one[1] == "Refusal")
    assert name == "Refusal" and refusal.Reason() == RefusalReason.Malformed
    assert said in refusal.Detail().decode() and devices.rounds.receipts == {}


def test_other_firmware_in_mid_round_does_not_fall_over_its_former_offer() -> None:
    """A waiting offer of another vector is dropped when the device returns with other firmware."""
    devices = Devices(devices=2, limits=Limits(slots=1))
    devices.come("a", CLASSES[0])
    devices.come("b", CLASSES[1])
    devices.rounds.tick(0.0)
    devices.upload("a", 0, np.ones(CLASSES[0].elements), examples=1, most=1)
    devices.upload("b", 1, np.ones(CLASSES[1].elements), examples=1, most=1)  # no slot is free
    devices.come("b", CLASSES[2])
    devices.upload("a", 0, np.ones(CLASSES[0].elements), examples=1)
    devices.upload("b", 2, np.full(CLASSES[2].elements, 3.0), examples=1)
    devices.rounds.tick(1.0)
    assert devices.store.models.latest()[1] == 1
    assert not any(name == "Refusal" for _, name, _ in devices.said)
    wanted = mean([(0, np.ones(CLASSES[0].elements), 1), (2, np.full(CLASSES[2].elements, 3.0), 1)])
    assert np.abs(devices.rounds.model - wanted).max() < 1e-6


@pytest.mark.parametrize("buffer", [0, 2])
def test_a_restart_in_mid_round_takes_what_a_sub_model_holds(buffer: int) -> None:
    """After a restart in mid-round, a sub-model's update counts: the new server has the same round and class."""
    before = Devices(devices=2, buffer=buffer)
    for devices in (before, Devices(store=before.store, devices=2, buffer=buffer, resume_s=0.0)):
        devices.come("a", CLASSES[1])
        devices.come("b", CLASSES[2])
        devices.rounds.tick(0.0)
    first, second = np.ones(CLASSES[1].elements, np.float32), np.full(CLASSES[2].elements, 4, np.float32)
    devices.upload("a", 1, first, examples=1)
    devices.upload("b", 2, second, examples=2)
    devices.rounds.tick(1.0)
    assert devices.store.models.latest()[1] == 1
    assert np.abs(devices.rounds.model - mean([(1, first, 1), (2, second, 2)])).max() < 1e-6


def test_who_has_none_of_the_layouts_is_refused() -> None:
    """A device with an unknown layout is refused with the list; an update of another class than Hello's, too."""
    devices = Devices(devices=1)
    devices.come("x", SubLayout(dense((6, 6, 5, 3)), None))
    _, name, refusal = devices.said[-1]
    assert name == "Refusal" and refusal.Reason() == RefusalReason.Layout
    assert all(f"{one.elements} elements, layout {one.crc32:08x}" in refusal.Detail().decode() for one in CLASSES)
    devices.come("a", CLASSES[1])
    devices.rounds.tick(0.0)
    devices.upload("a", 0, np.ones(CLASSES[0].elements), examples=1)
    refusals = [body for _, name, body in devices.said if name == "Refusal"]
    assert b"starts from model 1" in refusals[1].Detail() and devices.rounds.receipts == {}


CHAIN = (
    '[{ name = "k", shape = [4, 8] }, { name = "b", shape = [8] }, '
    '{ name = "l", shape = [8, 2] }, { name = "c", shape = [2] }]'
)


@pytest.mark.parametrize(
    ("widths", "tensors", "said"),
    [
        ("[0.5]", CHAIN, "model.widths: widths must begin with 1.0"),
        ("[1.0, 0.5, 0.5]", CHAIN, "model.widths: widths must begin with 1.0 and fall"),
        ("[1.0, 0.5, 0.45]", CHAIN, "model.widths: width 0.45 gives the same sub-model"),
        ("[1.0, 0.0]", CHAIN, "model.widths: [1.0, 0.0] must be a list of shares"),
        ("0.5", CHAIN, "model.widths: 0.5 must be a list of shares"),
        (str([1 - i / 20 for i in range(16)]), CHAIN, "model.widths: there are 16 widths; at most 15"),
        ("[1.0, 0.5]", '[{ name = "w", shape = [3, 2, 4] }]', "model.widths: the tensors are not a chain"),
        ("[1.0]", '[{ name = "w", shape = [3], scale = [true, false] }]', "model.tensors[0]: scale [True, False]"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, widths: str, tensors: str, said: str) -> None:
    """Each wrong setting is refused with what and where."""
    path = tmp_path / "federation.toml"
    path.write_text(f'[federation]\nname = "f"\n[model]\ntensors = {tensors}\nwidths = {widths}\n')
    with pytest.raises(ConfigError) as error:
        load(path)
    assert said in str(error.value)


def test_settings(tmp_path: Path) -> None:
    """A chain of layers needs only the widths."""
    path = tmp_path / "federation.toml"
    path.write_text(f'[federation]\nname = "f"\n[model]\ntensors = {CHAIN}\nwidths = [1, 0.5]\n')
    assert [one.elements for one in load(path).layout.classes()] == [58, 30]


def test_a_nested_fleet_beats_each_class_among_its_own_kind() -> None:
    """On the digits, a nested fleet of three widths beats each class alone (one seed of bench/submodels.py)."""
    found = submodels.compare(seed=5, rounds=submodels.ROUNDS)
    assert found["nested"][0] > max(found["alone"]) + 0.005


def test_one_device_of_each_class_on_a_broker() -> None:
    """With one device of each class on a broker, each downloads its own model, and all updates make one model."""
    rng = np.random.default_rng(1)
    x, y, _, _ = data.split(rng)
    parts = data.partition(y, 3, 1.0, rng)
    trainers = [CTrainer(widths, x[part], y[part]) for widths, part in zip(submodels.WIDTHS, parts, strict=True)]
    layout = dense(submodels.WIDTHS[0], submodels.SHARES)
    with RunningFederation(devices=3, layout=layout, trainers=trainers, rounds=3) as federation:
        federation.wait_rounds(3)
    assert [record.reported for record in federation.records] == [3, 3, 3]
    assert all(np.isfinite(model).all() for model in federation.models)

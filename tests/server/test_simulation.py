# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: the parts of the engine and whole runs are judged with the same fleet.
"""Virtual fleets: the same seed gives the same bits, no message passes a broken link, every update counts once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fedmote.cli.main import main
from fedmote.datasets import digits
from fedmote.demo.simulated_digits import simulate_digits
from fedmote.errors import ConfigError
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote.rounds.policy import Policy, Training
from fedmote.simulation import settings
from fedmote.simulation.battery import Batteries, BatteryModel
from fedmote.simulation.clock import Clock
from fedmote.simulation.network import DOWN, RESEND_S, UP, LinkModel, VirtualNetwork
from fedmote.simulation.population import PRESET, DeviceClass, assign_classes
from fedmote.simulation.settings import FleetSettings
from fedmote.simulation.simulation import ServerSettings
from fedmote.simulation.streams import RandomStreams
from fedmote.wire.codec import decode
from fedmote.wire.DeviceState import DeviceState

TRAINING = Training(epochs=2, batch_size=8, learning_rate=0.2)
POLICY = Policy(devices=5, select=12, goal=0.8, soft_deadline_s=300, hard_deadline_s=600, chunk_elements=512)
TUNNELS = LinkModel(2_000, 4_000, 200, 0.1, 300, 200)
"""Lost messages, and a link that comes and goes within a round."""


class Listed(FedAvg):
    """FedAvg that remembers its folds and when it made the model."""

    def __init__(self) -> None:
        self.rounds: list[list[Update]] = []

    def begin(self, model: Model) -> Accumulator:
        self.rounds.append([])
        return super().begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        self.rounds[-1].append(update)
        return super().fold(accumulator, update)


def fleet_of(devices: int, **options: Any) -> FleetSettings:
    device_class = DeviceClass("tunnel", steps_per_s=2.0, retry_s=5.0, link=TUNNELS, **options)
    return FleetSettings(devices=devices, classes=(device_class,), least_examples=10, most_examples=30)


# ---- the parts


def test_what_is_due_at_the_same_time_happens_in_the_order_in_which_it_was_asked_for() -> None:
    clock = Clock()
    seen: list[str] = []
    for name, time in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
        clock.call_at(time, seen.append, name)
    clock.call_at(1.0, lambda: clock.call_at(0.5, seen.append, "past"))
    clock.run(1.5)
    assert seen == ["a", "b", "past"] and clock.now == 1.5
    clock.call_at(1.9, clock.stop)
    clock.run(10)
    assert seen == ["a", "b", "past"] and clock.now == 1.9
    clock.run(10)
    assert seen == ["a", "b", "past", "c", "d"] and clock.now == 10


@pytest.mark.parametrize("time", [float("inf"), float("nan")])
def test_an_event_that_would_never_happen_is_refused(time: float) -> None:
    with pytest.raises(ValueError, match="never happen"):
        Clock().call_at(time, print)


def test_a_devices_draws_are_its_own_and_spread_evenly() -> None:
    one, many = RandomStreams(7, 1, 1), RandomStreams(7, 1, 50)
    mine = [one.uniform(0) for _ in range(2000)]
    other = []
    for _ in range(2000):
        other.append(many.uniform(1))
        assert many.uniform(0) == mine[len(other) - 1]
    assert all(0 <= u < 1 for u in mine) and len(set(mine)) == 2000 and mine != other
    assert np.allclose(np.histogram(mine, 4, (0, 1))[0], 500, atol=80)
    assert abs(np.corrcoef(mine, other)[0, 1]) < 0.1
    waits = [one.exponential(0, 30.0) for _ in range(4000)]
    assert abs(np.mean(waits) - 30) < 2 and abs(np.std(waits) - 30) < 2


def test_a_link_takes_its_time_and_keeps_the_order() -> None:
    clock, arrived = Clock(), []
    network = VirtualNetwork([LinkModel(100, 1000, 500, 0.0, 1e9, 0)], clock, 1, lambda device, up: None)
    clock.run(600)
    assert network.up == [True]
    for message in (b"x" * 100, b"y" * 50):
        network.send(UP, 0, message, lambda device, message: arrived.append((clock.now, message[:1])))
    network.send(DOWN, 0, b"z" * 1000, lambda device, message: arrived.append((clock.now, message[:1])), delay_s=0.25)
    assert network.free_at(0) == 601.5
    clock.run(700)
    assert arrived == [(601.5, b"x"), (601.75, b"z"), (602.0, b"y")]
    passed = Counter(sent_up=150, bytes_up=150, sent_down=1000, bytes_down=1000)
    assert network.counters == passed + Counter(connections=1)


def test_what_fails_is_repeated_or_lost() -> None:
    clock = Clock()
    arrived: list[Any] = []
    lost: list[int] = []
    network = VirtualNetwork([LinkModel(1e6, 1e6, 0, 0.5, 1e9, 0)], clock, 1, lambda device, up: None)
    clock.run(600)
    for _ in range(400):
        network.send(UP, 0, b"a", lambda device, message: arrived.append(clock.now))
    clock.run(700)
    assert len(arrived) == 400 and max(arrived) > 600 + 4 * RESEND_S  # one in 16 fails four times
    arrived.clear()
    for _ in range(400):
        network.send(
            UP, 0, b"b", lambda device, message: arrived.append(clock.now), at_least_once=False, on_lost=lost.append
        )
    clock.run(800)
    assert len(arrived) + len(lost) == 400 and 150 < len(lost) < 250


def test_nothing_passes_a_link_that_is_down() -> None:
    """Messages are sent all the time, both ways. None arrives while the link is down or if sent before it came back."""
    clock = Clock()
    up_since: dict[int, float | None] = {}
    changes: Counter[int] = Counter()

    def changed(device: int, up: bool) -> None:
        up_since[device] = clock.now if up else None
        changes[device] += 1

    network = VirtualNetwork([LinkModel(1000, 1000, 2000, 0.2, 30, 20)] * 20, clock, 3, changed)
    arrived: list[bool] = []

    def send() -> None:
        for device in range(20):
            for way in (UP, DOWN):
                network.send(way, device, b"m" * 300, arrive, clock.now)
        clock.call_at(clock.now + 1.7, send)

    def arrive(device: int, message: bytes, sent: float) -> None:
        since = up_since[device]
        arrived.append(since is not None and since <= sent)

    clock.call_at(0.0, send)
    clock.run(2000)
    assert len(arrived) > 10_000 and all(arrived) and min(changes[d] for d in range(20)) > 10
    passed = network.counters["bytes_up"] + network.counters["bytes_down"]
    assert network.counters["sent_up"] + network.counters["sent_down"] >= passed + network.counters["bytes_lost"]
    assert network.counters["bytes_lost"] > 0


def test_a_link_is_up_for_the_share_of_time_that_its_model_says() -> None:
    clock, ups = Clock(), Counter[bool]()
    network = VirtualNetwork([LinkModel(mean_up_s=60, mean_down_s=180)] * 100, clock, 5, lambda device, up: None)
    for second in range(700, 7000, 10):
        clock.run(second)
        ups.update(network.up)
    assert abs(ups[True] / ups.total() - 0.25) < 0.02


def test_a_battery_empties_by_day_is_charged_by_night_and_switches_the_device_off_in_between() -> None:
    model = BatteryModel(idle_h=10, train_h=1, radio_mb=1, charge_h=2, plugged_h=22, unplugged_h=6, reserve=0.3)
    batteries = Batteries([model, BatteryModel()], 12.0, np.random.default_rng(1))
    batteries.level[0] = 1.0
    levels, busy, on = {}, {}, {}
    for minute in range(0, 24 * 60 + 1, 5):
        batteries.advance(60.0 * minute)
        hour = minute / 60
        levels[hour], busy[hour], on[hour] = batteries.level[0], bool(batteries.busy()[0]), bool(batteries.on[0])
        if hour == 2:
            batteries.spend(0, 1800.0, 200_000)  # half a charge of training, a fifth of radio
    assert levels[1] == pytest.approx(0.9) and levels[2] == pytest.approx(0.8)
    assert levels[2 + 5 / 60] == pytest.approx(0.1 - 1 / 120)
    assert not busy[2] and busy[3] and on[3] and not on[4] and levels[4] == 0 and not on[8]
    assert levels[14] == 1 and on[14] and not busy[14]
    assert batteries.level[1] == 1 and batteries.percent(1) == 255 and batteries.percent(0) == round(100 * levels[24])


def test_an_empty_battery_comes_back_with_its_reserve_and_not_before() -> None:
    model = BatteryModel(idle_h=1, charge_h=10, plugged_h=12, unplugged_h=0, reserve=0.5)
    batteries = Batteries([model], 0.0, np.random.default_rng(1))
    back = None
    for minute in range(0, 24 * 60, 5):
        batteries.advance(60.0 * minute)
        if minute > 120 and batteries.on[0] and back is None:
            back = batteries.level[0]
    assert back is not None and 0.5 <= back < 0.52


def test_devices_are_dealt_to_classes_by_share_and_get_skewed_samples() -> None:
    random = np.random.default_rng(1)
    class_index = assign_classes(PRESET, 1000, random)
    assert np.bincount(class_index).tolist() == [500, 300, 200]
    y = np.repeat(np.arange(10, dtype=np.uint8), 20)
    parts = digits.sample(y, 200, 0.1, (20, 60), random)
    assert all(20 <= len(p) <= 60 for p in parts) and len({len(p) for p in parts}) > 20
    most = [np.bincount(y[p], minlength=10).max() / len(p) for p in parts]
    assert np.mean(most) > 0.6


# ---- whole runs


@pytest.mark.parametrize("policy", [POLICY, replace(POLICY, buffer=6)], ids=["synchronous", "asynchronous"])
def test_every_update_counts_once_and_the_bytes_add_up(policy: Policy) -> None:
    strategy = Listed()
    run = simulate_digits(fleet_of(40), ServerSettings(strategy, TRAINING, policy))
    received: Counter[str] = Counter()
    receive = run.sessions.receive

    def counted(name: str, message: bytes, now: float, send: Any) -> None:
        body = decode(message)
        assert body is not None
        will = isinstance(body, DeviceState) and not body.Online()
        assert run.fleet.network.up[run.fleet.index(name)] != will
        received[name] += len(message)
        receive(name, message, now, send)

    run.sessions.receive = counted  # type: ignore[assignment, method-assign]  # counts what is received
    result = run.run(3)
    assert len(result.commits) > 8
    for commit, folded in zip(result.commits, strategy.rounds, strict=False):
        record = commit.record
        names = [update.device for update in folded]
        assert record.reported == len(names) == len(set(names))
        assert record.examples == sum(update.examples for update in folded)
        assert record.partial == sum(update.partial for update in folded)
    network, clients = result.network, result.clients["tunnel"]
    # A device that was offline or was cut off by the deadline learns it from the commit, if at all.
    folds = sum(map(len, strategy.rounds))
    assert folds - 2 * len(result.commits) <= clients["updates"] <= folds
    wills = sum(received.values()) - network["bytes_up"]
    assert 0 < wills < 100 * clients["connections"]
    assert network["bytes_lost"] > 0 and network["tries_failed"] > 0
    assert result.server["bytes"] == sum(received.values())
    assert network["connections"] == clients["connections"]
    assert network["sent_up"] <= clients["bytes_out"] < network["sent_up"] + 40 * 3000  # some wait for a busy link
    lost_or_late = network["sent_up"] + network["sent_down"] - network["bytes_up"] - network["bytes_down"]
    assert 0 <= lost_or_late - network["bytes_lost"] < 40 * 3000  # updates still in transit


def test_the_log_makes_sense() -> None:
    result = simulate_digits(fleet_of(40), ServerSettings(FedAvg(), TRAINING, POLICY)).run(4)
    times = [c.at_s for c in result.commits]
    assert [c.record.round for c in result.commits] == list(range(1, len(times) + 1))
    assert times == sorted(times) and result.virtual_s == 4 * 3600
    for commit in result.commits:
        record = commit.record
        assert 1 <= record.reported <= record.selected <= 12 and 0 < record.seconds <= POLICY.hard_deadline_s + 1
        assert record.dropped <= record.selected and record.partial <= record.reported
    assert [c.bytes_up for c in result.commits] == sorted(c.bytes_up for c in result.commits)
    assert any(c.record.partial for c in result.commits) and any(c.record.dropped for c in result.commits)
    assert result.commits[-1].accuracy > 0.85


def test_no_more_clients_exist_than_work_or_speak() -> None:
    """Of four hundred devices, twelve at a time train; devices that only connect or leave add few client objects."""
    run = simulate_digits(fleet_of(400), ServerSettings(FedAvg(), TRAINING, POLICY))
    result = run.run(1)
    assert len(result.commits) > 3 and result.clients["tunnel"]["connections"] > 800
    assert result.most_awake < 60 and len(run.fleet.awake) < 60
    assert len(run.sessions.sessions) > 100


def test_a_clock_that_runs_too_fast_changes_nothing_but_the_times() -> None:
    """A clock that is a tenth too fast or too slow, or about to wrap around, changes only the times."""
    device_class = DeviceClass("odd", steps_per_s=2.0, drift_ppm=100_000, link=replace(TUNNELS, loss=0, mean_down_s=0))
    fleet = FleetSettings(devices=12, classes=(device_class,))
    run = simulate_digits(fleet, ServerSettings(FedAvg(), TRAINING, replace(POLICY, devices=12, select=1.0)))
    run.fleet.population.offset_ms[:] = 2**32 - 700_000
    result = run.run(1)
    assert len(result.commits) > 20 and all(c.record.reported == 12 for c in result.commits)


def test_devices_that_are_low_are_left_alone() -> None:
    """Battery devices below their reserve and off the charger report busy by day; the mains class works on."""
    low = DeviceClass("low", 0.5, 2.0, battery=BatteryModel(idle_h=3, plugged_h=20, unplugged_h=4, reserve=0.99))
    link = LinkModel(loss=0, mean_down_s=0)
    fleet = FleetSettings(devices=20, start_h=10.0, classes=(replace(low, link=link), DeviceClass("mains", link=link)))
    run = simulate_digits(fleet, ServerSettings(FedAvg(), TRAINING, POLICY))
    early = run.run(0.25).clients  # two battery checks, and the work in progress
    late = run.run(0.6).clients
    assert late["low"]["updates"] == early["low"]["updates"] and late["low"]["messages_out"] > 10
    assert late["mains"]["updates"] > early["mains"]["updates"] + 30


def test_a_run_goes_on_where_it_stopped() -> None:
    whole = simulate_digits(fleet_of(30), ServerSettings(FedAvg(), TRAINING, POLICY)).run(1)
    run = simulate_digits(fleet_of(30), ServerSettings(FedAvg(), TRAINING, POLICY))
    first = run.run(1, stop=lambda commit: commit.record.round == 2)
    assert len(first.commits) == 2 and first.virtual_s == first.commits[-1].at_s
    run.run(0.7)
    assert run.run(1).digest == whole.digest


def _figures(folder: Path, seed: str, hash_seed: str) -> dict[str, Any]:
    out = folder / f"{seed}-{hash_seed}.json"
    command = [sys.executable, "-c", "from fedmote.cli.main import main; main()", "simulate", "--devices", "40"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([*command, "--hours", "0.8", "--seed", seed, "--json", str(out)], check=True, env=environment,
                   stdout=subprocess.DEVNULL, timeout=200)  # fmt: skip
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def test_one_seed_gives_the_same_bits_in_every_process(tmp_path: Path) -> None:
    """One seed gives the same messages, times and model in every process, also if sets have another order."""
    first, second = _figures(tmp_path, "5", "1"), _figures(tmp_path, "5", "2")
    assert len(first["rounds"]) > 2 and first == second
    assert _figures(tmp_path, "6", "1")["digest"] != first["digest"]


# ---- settings

FEDERATION = """
[federation]
name = "day"
[model]
tensors = [
  { name = "dense0.kernel", shape = [64, 32] }, { name = "dense0.bias", shape = [32] },
  { name = "dense1.kernel", shape = [32, 10] }, { name = "dense1.bias", shape = [10] },
]
[training]
epochs = 2
batch_size = 8
learning_rate = 0.2
[round]
devices = 4
soft_deadline_s = 200.0
hard_deadline_s = 400.0
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "federation.toml"
    path.write_text(FEDERATION + text)
    return path


def test_a_federations_file_says_who_takes_part(tmp_path: Path) -> None:
    path = written(tmp_path, """
[simulation]
devices = 30
hours = 0.5
start_h = 8

[[simulation.class]]
name = "van"
share = 2
steps_per_s = 4
mean_down_s = 0
latency_ms = 900.0

[[simulation.class]]
name = "depot"
idle_h = 24
metered = true
""")  # fmt: skip
    read = settings.load(path)
    assert (read.devices, read.hours, read.start_h, read.seed) == (30, 0.5, 8.0, 1)
    van, depot = read.classes
    assert (van.name, van.share, van.link.latency_ms, van.link.mean_down_s) == ("van", 2.0, 900.0, 0.0)
    assert (depot.battery.idle_h, depot.metered, depot.link) == (24.0, True, LinkModel())
    out, plot = tmp_path / "out.json", tmp_path / "day.png"
    result = CliRunner().invoke(main, ["simulate", str(path), "--seed", "3", "--json", str(out), "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["seed"] == 3 and figures["virtual_seconds"] == 1800
    assert figures["clients"].keys() == {"van", "depot"} and len(figures["rounds"]) > 1
    assert plot.read_bytes().startswith(b"\x89PNG") and "van" in result.output and figures["digest"] in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[simulation]\ndevices = 0", "simulation.devices: 0 must be from 1 to 100000"),
        ("[simulation]\ndevises = 5", "simulation.devises: unknown; did you mean devices?"),
        ("[simulation]\nhours = true", "simulation.hours: True must be of type float"),
        ("[simulation]\nhours = nan", "simulation.hours: nan must be from 0.01"),
        ("[simulation]\nleast_examples = 100", "simulation.most_examples: 60 is below least_examples, 100; raise it"),
        ("simulation = 5\n[x]", "simulation: must be a section"),
        ("[simulation]\nclass = []", "simulation.class: must be sections, each [[simulation.class]]"),
        ("[[simulation.class]]\nshare = 1", "simulation.class[0].name: is missing; give the class a name"),
        ("[[simulation.class]]\nname = 'a'\nloss = 1", "simulation.class[0].loss: 1.0 must be from 0 to 0.9"),
        ("[[simulation.class]]\nname = 'a'\nmetered = 1", "simulation.class[0].metered: 1 must be true or false"),
        ("[[simulation.class]]\nname = 'a'\nspeed = 1", "simulation.class[0].speed: unknown; did you mean spread?"),
        ("[[simulation.class]]\nname = 'a'\n[[simulation.class]]\nname = 'a'", "two are named 'a'"),
        ("[[simulation.class]]\nname = 'a'\nidle_h = -1", "simulation.class[0].idle_h: -1.0 must be from 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_where_and_what_to_do(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        settings.load(path)
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value)


def test_the_command_line_tells_what_is_wrong(tmp_path: Path) -> None:
    path = written(tmp_path, "[simulation]\nalpha = -1")
    result = CliRunner().invoke(main, ["simulate", str(path)])
    assert result.exit_code == 1 and "simulation.alpha: -1.0 must be from 0.001" in result.output
    path.write_text(FEDERATION.replace("[64, 32]", "[64, 31]"))
    result = CliRunner().invoke(main, ["simulate", str(path)])
    assert result.exit_code == 1 and "model.tensors" in result.output and "shape = [64, 32]" in result.output

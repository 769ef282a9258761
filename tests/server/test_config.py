# SPDX-License-Identifier: Apache-2.0
"""A valid federation.toml is read; an invalid one is refused with an error that says where and what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Authority
from numpy.typing import NDArray

from fedmote.config.settings import load
from fedmote.errors import ConfigError
from fedmote.fleet.pace import Pace
from fedmote.fleet.selection import Selection
from fedmote.links.url import BrokerUrl
from fedmote.model.initial import dead_scales, glorot
from fedmote.model.layout import Layout, Tensor

GOOD = """
[federation]
name = "presses"
data = "state"
[model]
tensors = [{ name = "w", shape = [4, 3] }, { name = "b", shape = [3] }]
[mqtt]
url = "mqtt://server:secret@gateway:1883"
[training]
epochs = 5
learning_rate = 1
[round]
encodings = ["int8"]
"""


def write(tmp_path: Path, text: str) -> Path:
    """Put the text into a file."""
    path = tmp_path / "federation.toml"
    path.write_text(text)
    return path


def test_good(tmp_path: Path) -> None:
    """Every setting ends up in the right field."""
    settings = load(write(tmp_path, GOOD))
    assert (settings.name, settings.broker, settings.layout.elements) == (
        "presses",
        "mqtt://server:secret@gateway:1883",
        15,
    )
    assert settings.database == tmp_path / "state" / "presses.sqlite"
    assert settings.strategy == "fedavg"
    named = GOOD + '[strategy]\nname = "fednova"\n'
    assert load(write(tmp_path, named)).strategy == "fednova"
    assert settings.training.learning_rate == 1.0 and settings.policy.encodings == ("int8",)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs = 5", "epoch = 5", "training.epoch: unknown; did you mean epochs?"),
        ("epochs = 5", "epochs = 0", "training.epochs: 0 must be from 1 to 65535"),
        ("epochs = 5", 'epochs = "5"', "training.epochs: '5' must be of type int"),
        ('name = "presses"', 'name = "a b"', "federation.name: 'a b' must be 1 to 32 letters"),
        ('name = "presses"', "", "federation.name: is missing"),
        ("[mqtt]", "[mqqt]", "mqqt: unknown; did you mean mqtt?"),
        ("mqtt://server:secret@gateway:1883", "gateway", "mqtt.url: expected mqtt://[user:password@]host[:port]"),
        ("mqtt://server:secret@gateway:1883", "http://gateway", "mqtt.url: expected mqtt://"),
        ("gateway:1883", "gateway:99999", "mqtt.url: expected mqtt://"),
        ("gateway:1883", "gateway:0", "mqtt.url: port 0 is no port"),
        ("gateway:1883", "[::1", "mqtt.url: expected mqtt://"),
        ("gateway:1883", "gate way:1883", "mqtt.url: expected mqtt://"),
        ("secret@", "se/cret@", "in a password, / is %2F"),
        ("secret@", "se#cret@", "in a password, / is %2F"),
        ("server:secret@", ":secret@", "mqtt.url: a password needs a user before it"),
        ("server:secret@gateway", "127.example.org", "mqtt.url: names no user; a broker on 127.example.org must know"),
        ("server:secret@gateway:1883", "[fe80::2]", "who speaks: mqtt://user:password@[fe80::2]:1883"),
        ('data = "state"', 'data = "federation.toml/x"', "federation.data: "),
        ("server:secret@", "", "mqtt.url: names no user; a broker on gateway must know who speaks"),
        ("[4, 3]", "[4, -3]", "model.tensors[0]: shape [4, -3] must be a list of positive integers"),
        ('name = "b"', 'name = "w"', "model.tensors[1]: name 'w' must be"),
        ('["int8"]', '["int4"]', "round.encodings: ['int4'] must be a list of float32, int8"),
        (
            "[training]",
            '[strategy]\nname = "fedava"\n[training]',
            "strategy.name: 'fedava' must be one of fedavg, fednova",
        ),
        (
            "[training]",
            '[strategy]\nname = "fednova"\n[training]\nprox_mu = 0.1',
            "training.prox_mu: must be 0 with fednova",
        ),
        (
            "[training]",
            '[selection]\nby = "utilty"\n[training]',
            "selection.by: 'utilty' must be one of fair, random, utility",
        ),
        ("[training]", "[selection]\nby = 3\n[training]", "selection.by: 3 must be one of fair, random, utility"),
        ("[training]", "[selection]\ntiers = 11\n[training]", "selection.tiers: 11 must be from 1 to 10"),
        (
            "[training]",
            "[selection]\nmin_battery = 101\n[training]",
            "selection.min_battery: 101 must be from 0 to 100",
        ),
        ("[training]", "[selection]\nrequire_idle = 1\n[training]", "selection.require_idle: 1 must be true or false"),
        ("[training]", "[pace]\narrivals_per_s = 0.5\n[training]", "pace.arrivals_per_s: 0.5 must be from 1 to 1e+06"),
        ("[training]", "[pace]\nmeet = 60\n[training]", "pace.meet: unknown; did you mean meet_s?"),
        (
            "[round]",
            "[selection]\ntiers = 2\n[round]\nbuffer = 5",
            "selection.tiers: is for synchronous rounds; take it out",
        ),
        ("[round]", "[round]\nbuffer = 5\none_at_a_time = true", "round.one_at_a_time: is for synchronous rounds"),
        (
            "[round]",
            "[round]\nadaptive = true\none_at_a_time = true",
            "round.adaptive: is for devices that work side by side",
        ),
        (
            "[round]",
            "[round]\nsoft_deadline_s = 200",
            "round.hard_deadline_s: 120 must be at least soft_deadline_s, 200",
        ),
        (
            "[round]",
            "[round]\nadaptive = true\nsoft_deadline_s = 5",
            "round.min_deadline_s: 10 must be at most soft_deadline_s, 5",
        ),
        ("[round]", "[round]\nselect = inf", "round.select: inf must be from 0 to 1e+09"),
        ("[round]", "[round]\nseed = -1", "round.seed: -1 must be from 0 to"),
        ('["int8"]', "[[1]]", "round.encodings: [[1]] must be a list of float32, int8"),
        ("[federation]", "[federation", "federation.toml: "),
    ],
)
def test_bad(tmp_path: Path, old: str, new: str, says: str) -> None:
    """The error names the file, the key and the remedy."""
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value) and says in str(caught.value)
    assert "cret" not in str(caught.value).replace(str(path), "")  # of the password


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_a_broker_on_loopback_needs_no_user(tmp_path: Path, host: str) -> None:
    """A broker on loopback needs no user, because other machines cannot reach it."""
    assert load(write(tmp_path, GOOD.replace("server:secret@gateway", host))).broker is not None


def test_a_broker_in_parts() -> None:
    """User and password may contain any character, percent-encoded as in any URL. They are not printed."""
    url = BrokerUrl.parse("mqtts://b%40d:p%2Fa%23ss@[::1]")
    assert (url.user, url.password, url.host, url.port) == ("b@d", "p/a#ss", "::1", 8883)
    assert str(url) == "mqtts://[::1]:8883" and "p/a" not in repr(url)


def test_initial_model(tmp_path: Path) -> None:
    """The first model may come from a file. Its shapes must match the layout."""
    np.savez(tmp_path / "m.npz", w=np.ones((4, 3)), b=np.zeros(3))
    text = GOOD.replace("[model]", '[model]\ninitial = "m.npz"')
    initial = load(write(tmp_path, text)).initial
    assert initial is not None and initial.sum() == 12
    np.savez(tmp_path / "m.npz", w=np.ones((3, 4)), b=np.zeros(3))
    with pytest.raises(ConfigError, match=r"w is \(3, 4\), expected \(4, 3\)"):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 3), np.complex64), "w holds complex64, expected real numbers"),
        (np.full((4, 3), 1e300), "w holds NaN, infinity or numbers beyond float32"),
        (None, "m.npz: has no array 'w'; it has b"),
    ],
)
def test_a_wrong_initial_model(tmp_path: Path, array: NDArray[Any] | None, message: str) -> None:
    arrays = {"b": np.zeros(3)} | ({} if array is None else {"w": array})
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, GOOD.replace("[model]", '[model]\ninitial = "m.npz"')))


def test_files_of_the_initial_model(tmp_path: Path) -> None:
    """What is no such file is refused, and a package that is missing is named."""
    for name, message in (
        ("m.bin", "must be an .npz, .safetensors, .pt or .pth file"), ("m.npz", "File is not a zip file"),
        ("none.npz", "No such file"),
    ):  # fmt: skip
        if name != "none.npz":
            (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(ConfigError, match=message):
            load(write(tmp_path, GOOD.replace("[model]", f'[model]\ninitial = "{name}"')))


def test_scales_start_at_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A normalisation layer whose scale starts at 0 never learns: the default is 1, and a file with 0 is warned of."""
    names = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "norm/gamma", "ln.scale", "dense.weight2"]
    layout = Layout((*(Tensor(name, (2,)) for name in names), Tensor("w", (2, 2))))
    first = glorot(layout, 1)
    assert first[:14].reshape(7, 2)[:, 0].tolist() == [1, 0, 0, 1, 1, 1, 0]
    assert dead_scales(layout, first) == []
    tensors = '[{ name = "bn.weight", shape = [2] }, { name = "bn.bias", shape = [2] }]'
    np.savez(tmp_path / "m.npz", **{"bn.weight": np.zeros(2), "bn.bias": np.zeros(2)})  # type: ignore[arg-type]
    load(write(tmp_path, f'[federation]\nname = "f"\n[model]\ntensors = {tensors}\ninitial = "m.npz"\n'))
    assert "m.npz: the scales bn.weight are 0, so their layers cannot learn" in caplog.text


def test_selection_and_pace(tmp_path: Path) -> None:
    """The settings of selection and pace reach the server."""
    more = '[selection]\nby = "utility"\ntiers = 3\nmin_battery = 30\n[pace]\narrivals_per_s = 20\n'
    settings = load(write(tmp_path, GOOD + more))
    federation = settings.federation(None)
    assert federation.selection == Selection(by="utility", tiers=3, min_battery=30)
    assert federation.pace == Pace(arrivals_per_s=20.0)


def test_tls(tmp_path: Path) -> None:
    """The CA certificate comes from a file beside the settings, which must contain a certificate."""
    tls = GOOD.replace("mqtt://", "mqtts://")
    assert load(write(tmp_path, tls)).ca_file is None
    named = tls.replace("[training]", 'ca_file = "ca.pem"\n[training]')
    with pytest.raises(ConfigError, match=r"mqtt.ca_file: .*ca.pem: .*No such file"):
        load(write(tmp_path, named))
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"mqtt.ca_file: .*ca.pem: "):
        load(write(tmp_path, named))
    authority = Authority(tmp_path / "authority")
    (tmp_path / "ca.pem").write_bytes(authority.file.read_bytes())
    settings = load(write(tmp_path, named))
    assert settings.ca_file == tmp_path / "ca.pem"
    federation = settings.federation(settings.broker)
    assert (federation.broker, federation.ca_file) == ("mqtts://server:secret@gateway:1883", settings.ca_file)
    with pytest.raises(ConfigError, match=r"mqtt.ca_file: is for TLS; the url must be mqtts://"):
        load(write(tmp_path, named.replace("mqtts://", "mqtt://")))


OWN = """
from fedmote import WeightedMean

class Capped(WeightedMean):
    def __init__(self, most=100):
        self.most = most

    def weight(self, update):
        return min(update.examples, self.most)

class Nothing:
    pass
"""


def test_a_strategy_of_the_users_own(tmp_path: Path) -> None:
    """A class in a module beside the file, with its settings."""
    (tmp_path / "own_strategy.py").write_text(OWN)
    section = '[strategy]\nname = "own_strategy:Capped"\nmost = 7\n[training]'
    settings = load(write(tmp_path, GOOD.replace("[training]", section)))
    strategy = settings.make_strategy()
    assert (type(strategy).__name__, vars(strategy)) == ("Capped", {"most": 7})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('name = "no_such_module:Capped"', r"strategy.name: .*No module named 'no_such_module'; it is searched in"),
        ('name = "own_strategy:Kapped"', "module own_strategy has no class Kapped"),
        ('name = "own_strategy:Nothing"', r"own_strategy:Nothing is no strategy: it has no begin, fold, finish\(\)"),
        (
            'name = "own_strategy:Capped"\nleast = 7',
            "does not take these settings: .*unexpected keyword argument 'least'",
        ),
        ('name = "fedavg"\nleast = 7', "fedavg does not take these settings"),
        ('name = "broken_strategy:Capped"', "module broken_strategy raises ZeroDivisionError"),
    ],
)
def test_a_wrong_strategy_of_the_users_own(tmp_path: Path, section: str, message: str) -> None:
    (tmp_path / "own_strategy.py").write_text(OWN)
    (tmp_path / "broken_strategy.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, GOOD.replace("[training]", f"[strategy]\n{section}\n[training]")))

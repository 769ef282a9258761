# SPDX-License-Identifier: Apache-2.0
"""The C codec through the bindings: it decodes what it encodes, and rejects bytes that are no message."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmote_device import codec, kernels

U8, U16, U32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)
F32 = st.floats(width=32, allow_nan=False)
FLAG = st.booleans()
NAME = st.text("abcXYZ019_.-", min_size=1, max_size=63)
MESSAGES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "hello": {"device_id": NAME, "boot": U32, "battery": U8, "kinds": U8},
    "welcome": {"protocol": U8, "boot": U32, "open_round": U32, "come_back_ms": U32},
    "refusal": {"reason": st.integers(0, 8), "round": U32, "detail": st.text("aé✓", max_size=40)},
    "plan": {"round": U32, "task": st.integers(0, 2), "epochs": U16, "learning_rate": F32, "partial_allowed": FLAG},
    "withdraw": {"round": U32, "reason": st.integers(0, 5)},
    "model_chunk": {"version": U32, "index": U32, "data": st.binary(max_size=600)},
    "chunk_request": {"version": U32, "index": U32},
    "update_begin": {"round": U32, "loss": F32, "ranges": st.lists(st.tuples(U32, U32), max_size=8)},
    "update_chunk": {"round": U32, "index": U32, "scale": F32, "data": st.binary(max_size=600)},
    "update_end": {"round": U32, "chunks": U32, "crc32": U32},
    "update_status": {"round": U32, "state": st.integers(0, 2), "received": st.binary(max_size=32)},
    "progress": {"round": U32, "steps": U32, "loss": F32},
    "closing_notice": {"round": U32, "remaining_ms": U32},
    "receipt": {"round": U32, "crc32": U32},
    "commit": {"round": U32, "model_version": U32},
    "device_state": {"online": FLAG, "battery": U8, "flags": U8},
    "evaluation": {"round": U32, "correct": U32, "loss": F32, "seed": U32},
    "answer": {"round": U32, "count": U32, "sum": F32, "counts": st.lists(U32, max_size=40)},
}
bodies = st.sampled_from(sorted(MESSAGES)).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries(MESSAGES[name]))
)


def test_every_body_is_tried() -> None:
    assert set(MESSAGES) == set(codec.TYPES)
    assert [codec.BODIES[number] for number in (1, 8, 18)] == ["hello", "update_begin", "answer"]


@given(bodies)
def test_what_is_encoded_is_decoded(body: tuple[str, dict[str, Any]]) -> None:
    name, fields = body
    message = codec.encode(name, fields)
    decoded = codec.decode(message)
    assert decoded is not None
    assert decoded[0] == name
    assert {key: decoded[1][key] for key in fields} == fields
    assert kernels.verify(message) == codec.TYPES[name]


@given(bodies, st.integers(1, 7))
def test_messages_are_read_at_any_alignment(body: tuple[str, dict[str, Any]], shift: int) -> None:
    message = codec.encode(*body)
    assert codec.decode(memoryview(bytes(shift) + message)[shift:]) == codec.decode(message)


def test_absent_fields_have_the_schemas_defaults() -> None:
    assert codec.decode(codec.encode("device_state")) == ("device_state", {"online": True, "battery": 255, "flags": 0})
    plan = codec.decode(codec.encode("plan", round=1))
    assert plan is not None
    assert (plan[1]["epochs"], plan[1]["batch_size"], plan[1]["partial_allowed"]) == (1, 32, True)
    assert plan[1]["learning_rate"] == np.float32(0.1)


@given(st.binary(max_size=200))
def test_noise_is_no_message(noise: bytes) -> None:
    assert codec.decode(noise) is None
    assert kernels.verify(noise) == 0
    assert kernels.parse_update_chunk(noise) is None


@given(bodies, st.data())
def test_a_message_that_lost_its_end_is_no_message(body: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    message = codec.encode(*body)
    cut = message[: data.draw(st.integers(0, len(message) // 2))]
    assert codec.decode(cut) is None


def test_update_chunks_are_parsed_in_place() -> None:
    data = bytes(range(100))
    message = codec.encode("update_chunk", round=7, index=3, scale=0.5, data=data)
    parsed = kernels.parse_update_chunk(message)
    assert parsed is not None
    round_, index, offset, size, scale = parsed
    assert (round_, index, scale) == (7, 3, 0.5)
    assert message[offset : offset + size] == data
    assert kernels.parse_update_chunk(codec.encode("receipt", round=7)) is None


@pytest.mark.parametrize(
    ("name", "fields", "error"),
    [
        ("goodbye", {}, ValueError),
        ("receipt", {"rounds": 1}, ValueError),
        ("hello", {}, ValueError),
        ("receipt", {"round": -1}, OverflowError),
        ("receipt", {"round": 2**32}, OverflowError),
        ("receipt", {"round": "1"}, TypeError),
    ],
)
def test_mistakes_of_the_caller_are_told(name: str, fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        codec.encode(name, fields)

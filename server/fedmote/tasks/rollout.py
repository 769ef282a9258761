# SPDX-License-Identifier: Apache-2.0
"""Roll-out in stages: a model reaches more and more devices for as long as it is no worse on their data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedmote.tasks.base import Result
from fedmote.tasks.evaluate import Evaluate
from fedmote.tasks.release import Release
from fedmote.tasks.requests import Request

STAGES = (0.05, 0.25, 1.0)


def roll_out(
    do: Callable[[Request], Result], version: int, former: int, stages: Sequence[float], tolerance: float,
    say: Callable[[str], None] = lambda line: None,
) -> bool:  # fmt: skip
    """Bring a model to the devices in stages; return whether it reached all of them.

    Each stage evaluates the former model, then the new one, on the same devices. If the new loss is higher by more than
    `tolerance` (a share of the former loss), these devices get the former model again and the roll-out ends. A larger
    stage contains the smaller ones. If devices come or go between the two evaluations, a line says so.
    do: has the server do a task. stages: shares of the devices, ascending. say: takes a line of progress. TaskError: as
    `do` raises it.
    """
    for share in stages:
        pairs = ((former, version), (version, former))
        before, after = (do(Evaluate(of, share=share, order=version, against=other)) for of, other in pairs)
        was, loss = before["loss"]["mean"], after["loss"]["mean"]
        right = [evaluation["accuracy"]["mean"] for evaluation in (before, after)]
        say(f"{share:.0%} of the fleet, {after['devices']} devices: model {former} has loss {was:.4f}, accuracy "
            f"{right[0]:.3f}; model {version} has {loss:.4f}, {right[1]:.3f}")  # fmt: skip
        if (before["devices"], before["examples"]) != (after["devices"], after["examples"]):
            say(f"the two evaluations had different devices: {before['devices']} with {before['examples']} examples, "
                f"then {after['devices']} with {after['examples']}")  # fmt: skip
        if not loss <= was + tolerance * abs(was):
            do(Evaluate(former, share=share, order=version, against=version))
            return False
    do(Release(version))
    return True

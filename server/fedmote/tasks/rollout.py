# SPDX-License-Identifier: Apache-2.0
"""Roll-out in stages, roll-back and release of a committed model."""

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
    """Bring a model to the devices, a share of them after the other; return whether it reached all of them.

    Each stage asks the same devices twice: what the former model loses on their data, then what the new one does. When
    that is more by above `tolerance` (a share of the former loss's size), they get the former one again, and it ends.
    do: has the server do a task. A larger stage holds the smaller ones. Devices that come or go between the two
    evaluations make them differ; then it says so. TaskError: as `do` raises it.
    """
    for share in stages:
        pairs = ((former, version), (version, former))
        before, after = (do(Evaluate(of, share=share, order=version, against=other)) for of, other in pairs)
        was, loss = before["loss"]["mean"], after["loss"]["mean"]
        right = [evaluation["accuracy"]["mean"] for evaluation in (before, after)]
        say(f"{share:.0%} of the fleet, {after['devices']} devices: model {former} has loss {was:.4f}, accuracy "
            f"{right[0]:.3f}; model {version} has {loss:.4f}, {right[1]:.3f}")  # fmt: skip
        if (before["devices"], before["examples"]) != (after["devices"], after["examples"]):
            say(f"the two were not of the same devices: {before['devices']} with {before['examples']} examples, then "
                f"{after['devices']} with {after['examples']}")  # fmt: skip
        if not loss <= was + tolerance * abs(was):
            do(Evaluate(former, share=share, order=version, against=version))
            return False
    do(Release(version))
    return True

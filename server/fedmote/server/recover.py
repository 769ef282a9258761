# SPDX-License-Identifier: Apache-2.0
"""The last model is checked when the server starts; an older one can be put in its place."""

from __future__ import annotations

from dataclasses import asdict

from fedmote.errors import StoreError
from fedmote.learning.guard import model_error
from fedmote.rounds.record import Record
from fedmote.store.store import Store


def check_last_model(store: Store) -> None:
    """Raise StoreError if the last model cannot be trained; the message names the newest sound one."""
    version, _, model = store.models.latest()
    why = model_error(model, model.size)
    if why is None:
        return
    sound = [v for v in store.models.versions() if model_error(store.models.get(v), model.size) is None]
    remedy = (
        f"model {max(sound)} is sound; start once with --from-version {max(sound)} to go on from it"
        if sound else "no model that is kept is sound; restore the file from a backup, or name another data folder"
    )  # fmt: skip
    raise StoreError(f"{store.path}: model {version}, the last one, cannot be trained: {why}. {remedy}")


def go_on_from(store: Store, version: int) -> None:
    """Commit an earlier model as the next version. Updates under way no longer count. StoreError: it is not kept."""
    _, number, _ = store.models.latest()
    record = Record(number + 1, rolled_back_to=version)
    store.commit(record.round, store.models.get(version), asdict(record), void=True)

"""Models on a store: whole or not there, refused when touched, and what serves is never half of anything."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml import model_manifest, model_store
from ml.model_channels import MovedMeanwhile
from ml.model_manifest import ModelManifest, ModelRefused, from_bytes, to_bytes
from ml.model_store import ModelStore, packed, unpacked
from ml.shard_arrays import BadShard
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.sealed import Unsealed, seal, unseal
from tests.unit.ml.trained import LEARNED, small_shard, written
from tests.unit.racing import raced

START = datetime(2026, 11, 4, tzinfo=UTC)


class Ticking:
    """A clock that goes on by a minute each time it is looked at."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    return ModelStore(FileStore(tmp_path, create=True), "shop", Ticking())


def test_what_was_written_is_read(models: ModelStore) -> None:
    manifest = written(models)
    model = models.load(manifest.model_id)
    (found,), kept = model.shards, small_shard()
    assert found.shard.services == kept.shard.services
    assert all(np.array_equal(found.shard.params[name], kept.shard.params[name]) for name in kept.shard.params)
    assert found.sightings[0].last == dict(kept.sightings[0].last)
    assert models.ids() == [manifest.model_id] and model.manifest == manifest
    assert models.evaluation(manifest)["passed"] is True


Damage = Callable[[bytes], bytes | None]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "flipped": (lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], "sha256"),
    "cut": (lambda data: data[: len(data) // 2], "bytes, found"),
    "empty": (lambda data: b"", "found"),
    "gone": (lambda data: None, "found none"),
}


@pytest.mark.parametrize("file", ["manifest.json", "shard-0000.npz", "shard-0000.json", "templates.parquet"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_touched_is_refused_and_the_one_before_serves(models: ModelStore, file: str, damage: str) -> None:
    first, second = written(models, seed=1), written(models, seed=2)
    models.channels.promote(first.model_id, "first")
    models.channels.promote(second.model_id, "second")
    key = second.prefix + file
    change, told = DAMAGES[damage]
    data = change(models.store.get(key))
    models.store.delete(key) if data is None else models.store.put(key, data)
    with pytest.raises(ModelRefused) as refused:
        models.load(second.model_id)
    assert key in str(refused.value) and "expected" in str(refused.value) and "models" in str(refused.value)
    assert (told if file != "manifest.json" or damage == "gone" else "checksum") in str(refused.value)
    after_restart = models.serving()
    assert after_restart.model is not None and after_restart.model.model_id == first.model_id
    assert key in after_restart.problems[0]
    held = models.load(first.model_id)
    assert models.serving(held) == model_store.Serving(held, after_restart.problems)


def test_nothing_serves_where_nothing_was_promoted(models: ModelStore) -> None:
    written(models)
    assert models.serving() == model_store.Serving(None, ())


def test_a_pointer_that_went_leaves_the_held_model(models: ModelStore) -> None:
    held = models.load(models.channels.promote(written(models).model_id, "first").model_id)
    models.store.delete(models.channels.key("production"))
    kept = models.serving(held)
    assert kept.model is held and "found none" in kept.problems[0]


@pytest.mark.parametrize("name", ["production", "previous"])
def test_a_damaged_pointer_leaves_the_held_or_the_previous_model(models: ModelStore, name: str) -> None:
    first, second = written(models, seed=1), written(models, seed=2)
    models.channels.promote(first.model_id, "first")
    models.channels.promote(second.model_id, "second")
    held = models.load(second.model_id)
    models.store.put(models.channels.key(name), b"{}")  # pyright: ignore[reportArgumentType]
    found = models.serving()
    assert found.model is not None
    if name == "production":
        assert found.model.model_id == first.model_id and "production.json" in found.problems[0]
        kept = models.serving(held)
        assert kept.model is held and "promote MODEL --force" in kept.problems[0]
        models.channels.reset(second.model_id, "set again")
        assert models.serving(held) == model_store.Serving(held)
    else:
        assert found.model.model_id == second.model_id and not found.problems


def test_of_another_schema_is_refused(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = written(models)
    monkeypatch.setattr(model_manifest, "SCHEMA", model_manifest.SCHEMA + 1)
    with pytest.raises(ModelRefused, match=r"expected signals of schema .* train again"):
        models.load(manifest.model_id)


class Trap:
    """Unpickled, it would tell."""

    def __reduce__(self):
        return (Path("/nonexistent-trap").write_text, ("sprung",))


def _npz(**changed: object) -> bytes:
    with np.load(io.BytesIO(packed(small_shard())[0]), allow_pickle=False) as opened:
        arrays = {name: opened[name] for name in opened.files}
    opened = io.BytesIO()
    np.savez(opened, **{name: value for name, value in (arrays | changed).items() if value is not None})
    return opened.getvalue()


NAN = np.full_like(small_shard().shard.tails, np.nan)
FOREIGN: dict[str, Callable[[], bytes]] = {
    "float64": lambda: _npz(tails=small_shard().shard.tails.astype(np.float64)),
    "shape": lambda: _npz(tails=small_shard().shard.tails[:, :-1]),
    "nan": lambda: _npz(tails=NAN),
    "missing": lambda: _npz(tails=None),
    "objects": lambda: _npz(tails=np.array([Trap()], dtype=object)),
    "pickle": lambda: pickle.dumps([1, 2]),
    "text": lambda: b"hello",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_arrays_of_somebody_else_are_refused(kind: str) -> None:
    with pytest.raises(BadShard, match=r"expected|missing|holds"):
        unpacked(FOREIGN[kind](), packed(small_shard())[1])


def test_arrays_that_unpack_to_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "LARGEST_ARRAYS", 1000)
    with pytest.raises(BadShard, match="at most 1,000 bytes"):
        unpacked(*packed(small_shard()))


_ARRAYS, _ = packed(small_shard())


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["services", "vocabularies", "sightings", "schema", "votes"]), inner), max_leaves=12))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_names_of_any_kind_are_refused(names: object) -> None:
    with pytest.raises(BadShard):
        unpacked(_ARRAYS, orjson.dumps(names))


@given(st.dictionaries(st.text(max_size=8), st.integers(-(2**50), 2**50) | st.text(max_size=20), max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_a_sealed_document_is_itself_or_refused(body: dict, data: st.DataObject) -> None:
    sealed = seal(body)
    assert unseal(sealed) == body
    place, bit = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(0, 7))
    flipped = sealed[:place] + bytes([sealed[place] ^ 1 << bit]) + sealed[place + 1 :]
    for touched in (flipped, sealed[:place]):
        with pytest.raises(Unsealed):
            unseal(touched)


MANIFEST = ModelManifest("shop", "20261104T000100-0123456789ab", "2026-11-04T00:01:00+00:00", "", 2, 0, 0, LEARNED, ())


@given(st.sampled_from(sorted(unseal(to_bytes(MANIFEST)))), st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.lists(st.integers(-9, 9), max_size=2))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_a_manifest_of_another_kind_is_refused_or_read(name: str, value: object) -> None:
    body = unseal(to_bytes(MANIFEST)) | {name: value}
    try:
        from_bytes(seal(body), "here", MANIFEST.model_id)
    except ModelRefused as error:
        assert str(error).startswith("here: ")


def test_a_file_may_not_lead_out_of_the_model() -> None:
    outside = replace(MANIFEST, files=(model_manifest.ModelFile("../../x", 1, "00"),))
    with pytest.raises(ModelRefused, match="no name of a file"):
        from_bytes(to_bytes(outside), "here", MANIFEST.model_id)


def test_rolling_back_is_one_step_and_goes_both_ways(models: ModelStore) -> None:
    first, second = written(models, seed=1).model_id, written(models, seed=2).model_id
    with pytest.raises(ModelRefused, match="expected a model that served before, found none"):
        models.channels.roll_back("nothing there")
    models.channels.promote(first, "first")
    models.channels.promote(second, "second", over=first)
    assert models.channels.promote(second, "again").previous == first
    assert models.channels.roll_back("worse").model_id == first
    assert models.channels.current("previous") == second
    assert models.channels.roll_back("better after all").model_id == second


def test_who_compared_with_another_model_does_not_promote(models: ModelStore) -> None:
    first, second, third = (written(models, seed=seed).model_id for seed in (1, 2, 1))
    models.channels.promote(first, "first", over="")
    models.channels.promote(second, "second", over=first)
    with pytest.raises(MovedMeanwhile, match="nothing was changed"):
        models.channels.promote(third, "third", over=first)
    assert models.channels.current() == second


def test_of_many_who_promote_at_once_one_does(models: ModelStore) -> None:
    ids = [written(models, seed=1).model_id for _ in range(8)]
    models.channels.promote(ids[0], "first")
    others = ids[1:]
    won = raced(7, lambda mine: models.channels.promote(others[mine], "race", over=ids[0]), MovedMeanwhile)
    found = models.channels.read("production")
    assert found is not None and [others[mine] for mine in won] == [found[1].model_id]
    assert found[1].previous == ids[0]


class Killed(BaseException):
    """As a process that is not there any more: nothing of ours runs after it."""


@contextmanager
def killed_after(store: FileStore, puts: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    put, done = FileStore.put, [0]

    def dying(self: FileStore, *arguments, **more) -> str:
        if done[0] == puts:
            raise Killed
        done[0] += 1
        return put(self, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "put", dying)
        yield


@pytest.mark.parametrize("puts", range(9))
def test_killed_at_any_step_the_old_or_the_new_model_serves(
    models: ModelStore, puts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = written(models, seed=1).model_id
    models.channels.promote(old, "first")
    finished = False
    with killed_after(models.store, puts, monkeypatch):  # pyright: ignore[reportArgumentType]
        try:
            new = written(models, parent=old, seed=2).model_id
            models.channels.point_candidate(new, "trained")
            models.channels.promote(new, "passed", over=old)
            finished = True
        except Killed:
            pass
    serving = models.serving()
    assert serving.model is not None and not serving.problems
    # Six files of the model with its manifest, the candidate, production, the copy of what was before.
    assert (serving.model.model_id == old) is (puts < 8)
    assert len(models.ids()) == (2 if puts >= 6 else 1)
    assert not finished or puts == 9
    # Done again, it is done.
    new = written(models, parent=old, seed=2).model_id
    models.channels.promote(new, "passed")
    after = models.serving().model
    assert after is not None and after.model_id == new
    assert models.channels.roll_back("and back").model_id in (old, *models.ids())


def test_pruning_keeps_what_a_channel_names(models: ModelStore) -> None:
    ids = [written(models, seed=1).model_id for _ in range(5)]
    models.channels.promote(ids[0], "first")
    models.channels.promote(ids[1], "second")
    half = f"{model_manifest.model_prefix('shop')}20200101T000000-0123456789ab/shard-0000.npz"
    models.store.put(half, b"left behind")
    assert models.prune(2) == [ids[2]]
    assert models.ids() == [ids[0], ids[1], *ids[3:]]
    later = replace(models, clock=lambda: datetime.now(UTC) + timedelta(days=2))
    later.prune(2)
    assert [info.key for info in models.store.list(half)] == []


@pytest.mark.parametrize("tenant", ["..", "a/b", "ünï", "%2E"])
def test_any_tenant_has_a_folder_of_its_own(tmp_path: Path, tenant: str) -> None:
    models = ModelStore(FileStore(tmp_path, create=True), tenant, Ticking())
    models.channels.promote(written(models).model_id, "first")
    assert models.serving().model is not None


@given(st.lists(st.sampled_from(["promote a", "promote b", "promote c", "back"]), max_size=12))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_is_moved_production_and_the_way_back_are_two_models(tmp_path_factory, moves: list[str]) -> None:
    channels = ModelStore(FileStore(tmp_path_factory.mktemp("moves"), create=True), "shop", Ticking()).channels
    now, before = "", ""
    for move in moves:
        if move == "back":
            if not before:
                continue
            channels.roll_back(move)
            now, before = before, now
        else:
            wanted = f"20261104T000000-{move[-1] * 12}"
            channels.promote(wanted, move)
            now, before = (now, before) if wanted == now else (wanted, now)
        found = channels.read("production")
        assert found is not None and (found[1].model_id, found[1].previous) == (now, before)
        assert channels.current("previous") == before

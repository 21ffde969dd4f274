"""A checkpoint reads back bit for bit, or is refused with a reason."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.checkpoint.format import read_files, read_head, write_files
from peer.errors import DamagedError
from peer.training.state import Schema, TensorSpec

FILES = ["state.safetensors", "local.safetensors", "checkpoint.json"]


@pytest.fixture(scope="module")
def written(tmp_path_factory, make_checkpoint, manifest_hash):
    """Return a folder that holds a checkpoint; tests copy it."""
    folder = tmp_path_factory.mktemp("written")
    write_files(make_checkpoint(3), manifest_hash, folder)
    return folder


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copied")


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_checkpoint_reads_back_bit_for_bit(
    tmp_path, make_checkpoint, manifest_hash, schema, slots, assert_same, epoch
):
    checkpoint = make_checkpoint(epoch)
    checkpoint.state.parameters[:5] = [-0.0, 0.0, 1e-45, 3.4e38, -1e-38]
    checkpoint = dataclasses.replace(checkpoint, state_root=checkpoint.state.root(manifest_hash))
    write_files(checkpoint, manifest_hash, tmp_path)
    loaded = read_files(tmp_path, manifest_hash, schema, slots)
    assert_same(loaded, checkpoint)
    assert loaded.state.root(manifest_hash) == checkpoint.state_root
    loaded.state.parameters += 1.0


def test_a_state_without_a_place_reads_back_and_has_no_local_part(
    tmp_path, make_checkpoint, manifest_hash, schema, slots, assert_same
):
    checkpoint = make_checkpoint(3, place=None)
    write_files(checkpoint, manifest_hash, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILES[2], FILES[0]]
    assert_same(read_files(tmp_path, manifest_hash, schema, slots), checkpoint)
    assert read_head(tmp_path, manifest_hash).local is None


def test_it_consists_of_the_files_that_are_damaged_below_and_no_pickle(written):
    assert sorted(path.name for path in written.iterdir()) == sorted(FILES)


def test_what_stands_beside_the_state_does_not_enter_its_name(make_checkpoint):
    one = make_checkpoint(3)
    other = make_checkpoint(3, generation=5, place=one.place.with_micro_batch(1))
    assert other.name == one.name


def test_names_sort_by_epoch(make_checkpoint):
    epochs = [0, 9, 10, 99_999_999]
    names = [make_checkpoint(epoch).name for epoch in epochs]
    assert names == sorted(names)


@pytest.mark.parametrize("file", FILES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_noticed(
    written, tmp_path_factory, manifest_hash, schema, slots, file, data
):
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copytree(written, folder, dirs_exist_ok=True)
    content = bytearray((written / file).read_bytes())
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    content[place // 8] ^= 1 << place % 8
    (folder / file).write_bytes(content)
    with pytest.raises(DamagedError):
        read_files(folder, manifest_hash, schema, slots)


@pytest.mark.parametrize("file", FILES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_file_cut_short_anywhere_is_noticed(
    written, tmp_path_factory, manifest_hash, schema, slots, file, data
):
    folder = tmp_path_factory.mktemp("cut")
    shutil.copytree(written, folder, dirs_exist_ok=True)
    content = (written / file).read_bytes()
    (folder / file).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DamagedError):
        read_files(folder, manifest_hash, schema, slots)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("tail", [b"\0", b"x", b"{}"])
def test_a_file_with_a_tail_is_noticed(copied, manifest_hash, schema, slots, file, tail):
    with (copied / file).open("ab") as opened:
        opened.write(tail)
    with pytest.raises(DamagedError):
        read_files(copied, manifest_hash, schema, slots)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_noticed(copied, manifest_hash, schema, slots, file):
    (copied / file).unlink()
    with pytest.raises(DamagedError, match="it cannot be read"):
        read_files(copied, manifest_hash, schema, slots)


@pytest.mark.parametrize("file", FILES)
def test_a_folder_in_a_files_place_is_noticed(copied, manifest_hash, schema, slots, file):
    (copied / file).unlink()
    (copied / file).mkdir()
    with pytest.raises(DamagedError):
        read_files(copied, manifest_hash, schema, slots)


@pytest.mark.parametrize("text", ["null", "5", '"x"', "[]", "{}", "true", "[" * 100_000, "\xff"])
def test_a_head_that_is_other_json_is_noticed(copied, manifest_hash, schema, slots, text):
    (copied / "checkpoint.json").write_text(text)
    with pytest.raises(DamagedError):
        read_files(copied, manifest_hash, schema, slots)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_epochs_checkpoint_is_noticed(
    copied, tmp_path, make_checkpoint, manifest_hash, schema, slots, file
):
    other = tmp_path / "other"
    other.mkdir()
    write_files(make_checkpoint(4), manifest_hash, other)
    shutil.copy(other / file, copied / file)
    with pytest.raises(DamagedError):
        read_files(copied, manifest_hash, schema, slots)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("epoch", 4, "changed"),
        ("generation", 0, "changed"),
        ("state_root", "0" * 64, "changed"),
        ("certificate", None, "changed"),
        ("manifest", "cd" * 32, "changed"),
        ("local", {}, "changed"),
    ],
)
def test_a_changed_field_of_the_head_is_noticed(
    copied, manifest_hash, schema, slots, field, value, reason
):
    file = copied / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(DamagedError, match=reason):
        read_files(copied, manifest_hash, schema, slots)


def test_a_checkpoint_of_another_manifest_is_refused(copied, schema, slots):
    with pytest.raises(DamagedError, match="it belongs to another run"):
        read_files(copied, "cd" * 32, schema, slots)


def test_a_state_that_does_not_have_its_root_is_refused(copied, manifest_hash, schema, slots):
    file = copied / "state.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["w"][0, 0] += 1.0
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(DamagedError, match="does not have the root that names it"):
        read_files(copied, manifest_hash, schema, slots)


def test_a_checkpoint_of_another_model_is_refused(copied, manifest_hash, slots):
    other = Schema((TensorSpec("bias", (8,)), TensorSpec("w", (40, 30))))
    with pytest.raises(DamagedError, match=r"state\.safetensors"):
        read_files(copied, manifest_hash, other, slots)


@pytest.mark.parametrize(
    "change",
    [
        {"momentum": np.zeros(1208, np.float32)},
        {"exp_avg": np.zeros(1207, np.float32)},
        {"exp_avg": np.zeros(1208, np.float64)},
        {"beta_powers": np.ones(2, np.float32)},
    ],
    ids=["one-more", "other-shape", "other-dtype", "other-precision"],
)
def test_a_checkpoint_of_another_optimizer_is_refused(copied, manifest_hash, schema, slots, change):
    with pytest.raises(DamagedError):
        read_files(copied, manifest_hash, schema, slots | change)


def test_a_checkpoint_with_more_than_the_optimizers_buffers_is_refused(
    copied, manifest_hash, schema, slots
):
    fewer = {name: slot for name, slot in slots.items() if name != "exp_avg"}
    with pytest.raises(DamagedError, match=r"optimizer\.exp_avg"):
        read_files(copied, manifest_hash, schema, fewer)

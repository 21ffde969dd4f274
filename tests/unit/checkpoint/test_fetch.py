"""A joiner gets the state that the root names or none, whatever donors do and whenever it ends."""

import asyncio
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.checkpoint.fetch import Shares, fetched_snapshot
from peer.checkpoint.snapshot import FRAME_BYTES
from peer.errors import ConfigurationError, MisbehavedError
from peer.swarm.download import FetchError
from peer.training.state import CHUNK_BYTES, Schema, StateHeader, TensorSpec, root_of

PLACES = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]


class Interrupted(Exception):  # noqa: N818 no error of ours
    pass


def same(state, other):
    ours, theirs = dict(state.buffers()), dict(other.buffers())
    assert state.epoch == other.epoch
    assert state.schema == other.schema
    assert ours.keys() == theirs.keys()
    for name, buffer in ours.items():
        assert (buffer.dtype, buffer.shape) == (theirs[name].dtype, theirs[name].shape)
        assert buffer.tobytes() == theirs[name].tobytes()
    return True


def refused(town):
    return {refusal.donor: refusal.kind for refusal in town.refusals}


def left_over(town):
    return sorted(path.name for path in town.staging.glob("*"))


def interrupt_after(chunks):
    """Return an `on_progress` that ends the fetch when so many chunks have come."""
    calls = []

    def on_progress(done, total):
        calls.append(done)
        if len(calls) > chunks:
            raise Interrupted

    return on_progress


def test_a_state_is_fetched_bit_for_bit_and_the_staging_is_removed(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.donor("a", make_large(3), checkpoint)
        state = await town.fetch(["a"], checkpoint.state_root)
        assert same(state, checkpoint.state)
        assert state.root("ab" * 32) == checkpoint.state_root
        state.parameters += 1.0
        total = sum(buffer.nbytes for _, buffer in state.buffers())
        assert town.progress[0] == (0, total)
        assert town.progress[-1] == (total, total)
        assert len(town.progress) == 1 + len(PLACES)
        assert left_over(town) == []
        assert town.refusals == []

    run(scenario())


def test_threads_and_a_real_clock_give_the_same(make_town, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        for name in "abc":
            await town.donor(name, checkpoint)
        assert same(await town.fetch("abc", checkpoint.state_root), checkpoint.state)
        assert town.refusals == []

    asyncio.run(scenario())


def test_several_donors_share_the_work(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        for name in "abc":
            await town.stranger(name, checkpoint.state)
        assert same(await town.fetch("abc", checkpoint.state_root), checkpoint.state)
        assert {donor for donor, *_ in town.asked} == {"a", "b", "c"}

    run(scenario())


@pytest.mark.parametrize("chunks", range(len(PLACES) + 1))
def test_a_fetch_that_ends_at_any_chunk_goes_on_from_there(make_town, run, make_large, chunks):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("a", checkpoint.state)
        with pytest.raises(Interrupted):
            await town.fetch(["a"], checkpoint.state_root, interrupt_after(chunks))
        await asyncio.sleep(1.0)  # what was under way arrives
        town.asked.clear()
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)
        assert [tuple(place) for _, *place in town.asked] == PLACES[chunks:]
        assert town.progress[0][0] == sum(
            min(CHUNK_BYTES, town.wanted.sizes[b] - i * CHUNK_BYTES) for b, i in PLACES[:chunks]
        )
        assert left_over(town) == []

    run(scenario())


KILLED = """
import asyncio, importlib.util, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
spec = importlib.util.spec_from_file_location("memory", {memory!r})
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
schema = conftest.Schema(tuple(conftest.TensorSpec(n, tuple(s)) for n, s in {shapes!r}))
slots = conftest.initial_slots(conftest.AdamW(lr=1.0), schema.elements)
wanted = conftest.Wanted(
    root="", manifest_hash=conftest.MANIFEST_HASH, schema=schema, slots=slots
)

async def main():
    town = conftest.Town(memory.MemorySwarm(), Path({folder!r}), wanted)
    await town.donor("a")

    def on_progress(done, total):
        if done > total * {share}:
            os.kill(os.getpid(), signal.SIGKILL)

    await town.fetch(["a"], {root!r}, on_progress)

asyncio.run(main())
"""


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_fetch_that_is_killed_goes_on_from_there(
    make_town, make_large, tmp_path, large_schema, share
):
    checkpoint = make_large(4)

    async def prepare():
        await make_town().donor("a", checkpoint)

    asyncio.run(prepare())
    here = Path(__file__).parent
    code = KILLED.format(
        tests=str(here),
        memory=str(here.parents[1] / "sim" / "memory.py"),
        shapes=large_schema.shapes(),
        folder=str(tmp_path),
        share=share,
        root=checkpoint.state_root,
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    async def go_on():
        town = make_town()
        await town.donor("a")
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)
        done, total = town.progress[0]
        assert share * total < done <= total

    asyncio.run(go_on())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("offset", [0, -1])
def test_what_was_changed_on_the_disk_meanwhile_is_fetched_anew(
    make_town, run, make_large, place, offset
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("a", checkpoint.state)
        with pytest.raises(Interrupted):
            await town.fetch(["a"], checkpoint.state_root, interrupt_after(len(PLACES)))
        file = town.staging / checkpoint.state_root / str(place[0])
        data = bytearray(file.read_bytes())
        chunk = data[place[1] * CHUNK_BYTES : (place[1] + 1) * CHUNK_BYTES]
        chunk[offset] ^= 1
        data[place[1] * CHUNK_BYTES : (place[1] + 1) * CHUNK_BYTES] = chunk
        file.write_bytes(data)
        town.asked.clear()
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)
        assert town.asked == [("a", *place)]

    run(scenario())


@pytest.mark.parametrize("name", ["header.json", "0", "3"])
@pytest.mark.parametrize("content", [b"", b"x" * 2_000_000])
def test_a_staging_file_of_another_size_is_mended(make_town, run, make_large, name, content):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.donor("a", checkpoint)
        with pytest.raises(Interrupted):
            await town.fetch(["a"], checkpoint.state_root, interrupt_after(5))
        (town.staging / checkpoint.state_root / name).write_bytes(content)
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)

    run(scenario())


def test_a_header_of_another_state_in_the_staging_is_not_believed(make_town, run, make_large):
    async def scenario():
        town, checkpoint, other = make_town(), make_large(4), make_large(5)
        await town.donor("a", checkpoint)
        with pytest.raises(Interrupted):
            await town.fetch(["a"], checkpoint.state_root, interrupt_after(3))
        header = town.staging / checkpoint.state_root / "header.json"
        header.write_bytes(other.state.header("ab" * 32).to_bytes())
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)

    run(scenario())


def test_the_staging_of_another_state_is_removed(make_town, run, make_large):
    async def scenario():
        town, first, second = make_town(), make_large(4), make_large(5)
        await town.stranger("a", first.state)
        await town.stranger("b", second.state)
        with pytest.raises(Interrupted):
            await town.fetch(["a"], first.state_root, interrupt_after(3))
        with pytest.raises(Interrupted):
            await town.fetch(["b"], second.state_root, interrupt_after(3))
        assert left_over(town) == [second.state_root]

    run(scenario())


@pytest.mark.parametrize("place", PLACES)
def test_a_corrupted_chunk_is_found_and_fetched_elsewhere(make_town, run, make_large, place):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)

        async def lie(asked, frames):
            if asked == place:
                frames[-1] = frames[-1][:-1] + bytes([frames[-1][-1] ^ 1])
            return frames

        async def wait_for_the_lie(asked, frames):
            await town.refused.wait()
            return frames

        await town.stranger("liar", checkpoint.state, spoil=lie)
        await town.stranger("honest", checkpoint.state, spoil=wait_for_the_lie)
        state = await town.fetch(["liar", "honest"], checkpoint.state_root)
        assert same(state, checkpoint.state)
        assert refused(town) == {"liar": "misbehaved"}
        assert "a chunk does not have its hash" in town.refusals[0].reason
        assert ("honest", *place) in town.asked

    run(scenario())


async def one_byte_less(place, frames):
    return [frame[:-1] for frame in frames]


async def one_byte_more(place, frames):
    return [frame + b"x" for frame in frames]


async def one_frame_more(place, frames):
    return [*frames, b"x" * 100]


async def empty_frames(place, frames):
    return [b""] * 1000


async def an_endless_frame(place, frames):
    return [bytes(100 * FRAME_BYTES)]


async def another_chunk(place, frames):
    return [bytes(len(frame)) for frame in frames]


async def nothing(place, frames):
    await asyncio.Event().wait()


async def half_a_chunk(place, frames):
    return frames[:-1] if len(frames) > 1 else await nothing(place, frames)


HOSTILE = [
    one_byte_less,
    one_byte_more,
    one_frame_more,
    empty_frames,
    an_endless_frame,
    another_chunk,
    nothing,
    half_a_chunk,
]


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_a_donor_that_does_not_give_what_is_due_is_left(make_town, run, make_large, spoil):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("bad", checkpoint.state, spoil=spoil)
        with pytest.raises(FetchError, match="bad"):
            await town.fetch(["bad"], checkpoint.state_root)
        assert list(refused(town)) == ["bad"]
        await town.donor("good", checkpoint)
        assert same(await town.fetch(["bad", "good"], checkpoint.state_root), checkpoint.state)

    run(scenario())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (one_byte_less, "it gave 262143 bytes where 262144 were due"),
        (empty_frames, "it gave 0 bytes where 262144 were due"),
        (one_byte_more, "262145 bytes where 262144 are the most"),
        (another_chunk, "a chunk does not have its hash"),
        (nothing, "nothing moved for 30 s"),
    ],
)
def test_what_a_donor_did_is_said(make_town, run, make_large, spoil, reason):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("bad", checkpoint.state, spoil=spoil)
        with pytest.raises(FetchError, match="bad"):
            await town.fetch(["bad"], checkpoint.state_root)
        assert reason in town.refusals[0].reason

    run(scenario())


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_where_all_donors_are_bad_each_is_named_and_the_disk_stays_bounded(
    make_town, run, make_large, spoil
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        for name in ("bad1", "bad2", "bad3"):
            await town.stranger(name, checkpoint.state, spoil=spoil)
        with pytest.raises(FetchError) as caught:
            await town.fetch(["bad1", "bad2", "bad3"], checkpoint.state_root)
        assert sorted(refused(town)) == ["bad1", "bad2", "bad3"]
        assert all(f"{name}: " in str(caught.value) for name in refused(town))
        assert caught.value.refusals == tuple(town.refusals)
        written = sum(p.stat().st_size for p in (town.staging / checkpoint.state_root).iterdir())
        assert written < sum(town.wanted.sizes) + 10_000

    run(scenario())


def test_nobody_to_ask_is_said(make_town, run, make_large):
    async def scenario():
        town = make_town()
        for donors in ([], ["joiner"]):
            with pytest.raises(FetchError, match="there was nobody to ask"):
                await town.fetch(donors, make_large(4).state_root)

    run(scenario())


def test_a_donor_that_has_not_the_state_is_left(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.donor("old", make_large(3))
        await town.donor("new", checkpoint)
        donors = ["old", "gone", "new", "old"]
        assert same(await town.fetch(donors, checkpoint.state_root), checkpoint.state)
        assert refused(town).items() <= {"old": "declined", "gone": "unreachable"}.items()
        with pytest.raises(FetchError, match="that state is not here"):
            await town.fetch(["old"], checkpoint.state_root)

    run(scenario())


@pytest.mark.parametrize("spoilt", ["header", "chunk"])
def test_a_frozen_donor_holds_nobody_up(make_town, run, make_large, spoilt):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.donor("good", checkpoint)
        if spoilt == "chunk":
            await town.stranger("frozen", checkpoint.state, spoil=nothing)
        else:
            town.swarm.transport("frozen")
            town.swarm.frozen.add("frozen")
        begun_s = asyncio.get_running_loop().time()
        donors = ["frozen", "good"]
        assert same(await town.fetch(donors, checkpoint.state_root), checkpoint.state)
        assert asyncio.get_running_loop().time() - begun_s < 20.0
        with pytest.raises(FetchError, match="frozen"):
            await town.fetch(["frozen"], make_large(4).state_root)
        assert refused(town) == {"frozen": "unreachable"}

    run(scenario())


def test_a_slow_donor_is_helped_out_at_the_end(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)

        async def slow(place, frames):
            await asyncio.sleep(25.0)
            return frames

        await town.stranger("slow", checkpoint.state, spoil=slow)
        await town.stranger("fast", checkpoint.state)
        begun_s = asyncio.get_running_loop().time()
        assert same(await town.fetch(["slow", "fast"], checkpoint.state_root), checkpoint.state)
        assert asyncio.get_running_loop().time() - begun_s < 5.0
        assert town.refusals == []

    run(scenario())


def test_a_donor_that_dies_is_left_and_its_chunks_come_from_others(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        for name in "abc":
            await town.stranger(name, checkpoint.state)

        def on_progress(done, total):
            town.note(done, total)
            for count, name in ((3, "a"), (5, "b")):
                if len(town.progress) == count:
                    town.swarm.kill(name)

        assert same(await town.fetch("abc", checkpoint.state_root, on_progress), checkpoint.state)
        assert set(refused(town).values()) <= {"unreachable"}

    run(scenario())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header: b"",
        lambda header: header[:-1],
        lambda header: header + b" ",
        lambda header: header.replace(b'"epoch":4', b'"epoch":5'),
        lambda header: b"[" * len(header),
        lambda header: b"x" * 10_000_000,
    ],
)
def test_a_header_that_has_not_the_root_is_refused_and_another_donor_asked(
    make_town, run, make_large, spoil
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        header = checkpoint.state.header("ab" * 32).to_bytes()
        assert spoil(header) != header
        await town.stranger("bad", checkpoint.state, header=spoil(header))
        with pytest.raises(FetchError, match="bad"):
            await town.fetch(["bad"], checkpoint.state_root)
        assert refused(town) == {"bad": "misbehaved"}
        await town.donor("good", checkpoint)
        assert same(await town.fetch(["bad", "good"], checkpoint.state_root), checkpoint.state)

    run(scenario())


def with_buffer(header, number, **changed):
    names = ("name", "dtype", "hashes")
    buffer = dict(zip(names, header.buffers[number], strict=True)) | changed
    buffers = list(header.buffers)
    buffers[number] = tuple(buffer[name] for name in names)
    return dataclasses.replace(header, buffers=tuple(buffers))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: dataclasses.replace(h, manifest="cd" * 32),
        lambda h: dataclasses.replace(h, epoch=-1),
        lambda h: dataclasses.replace(h, epoch=10**15 + 1),
        lambda h: dataclasses.replace(h, chunk_bytes=1 << 21),
        lambda h: dataclasses.replace(h, tensors=h.tensors[:-1]),
        lambda h: dataclasses.replace(h, tensors=(*h.tensors[:-1], ("z", (1024, 129)))),
        lambda h: dataclasses.replace(h, tensors=h.tensors[::-1]),
        lambda h: dataclasses.replace(h, buffers=h.buffers[:-1]),
        lambda h: dataclasses.replace(h, buffers=(*h.buffers, ("more", "<f4", ("0" * 64,)))),
        lambda h: dataclasses.replace(h, buffers=h.buffers[::-1]),
        lambda h: with_buffer(h, 0, dtype="<f8"),
        lambda h: with_buffer(h, 0, name="optimizer.exp_avg"),
        lambda h: with_buffer(h, 0, hashes=("0" * 64,)),
        lambda h: with_buffer(h, 0, hashes=("0" * 64,) * 3),
    ],
)
def test_a_hostile_root_of_another_shape_is_refused_before_anything_is_fetched(
    make_town, run, make_large, change
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        header = change(checkpoint.state.header("ab" * 32))
        await town.stranger("bad", checkpoint.state, header=header.to_bytes())
        with pytest.raises((MisbehavedError, FetchError)) as caught:
            await town.fetch(["bad"], root_of(header))
        assert "none of this run's model" in str(caught.value) or "bytes where" in str(caught.value)
        assert town.asked == []
        assert all(name == root_of(header) for name in left_over(town))

    run(scenario())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["parameters", "exp_avg", "exp_avg_sq", "beta_powers"])
def test_a_poisoned_state_is_refused_though_every_hash_fits(make_town, run, make_large, bad, where):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        state = checkpoint.state
        buffer = state.parameters if where == "parameters" else state.optimizer[where]
        buffer[-1] = bad
        poisoned = make_large(4, parameters=state.parameters, optimizer=state.optimizer)
        await town.donor("a", poisoned)
        with pytest.raises(MisbehavedError, match="poisoned"):
            await town.fetch(["a"], poisoned.state_root)
        assert town.progress[-1][0] == town.progress[-1][1]
        assert left_over(town) == []

    run(scenario())


def test_a_state_of_another_model_is_refused(make_town, run, make_large, make_checkpoint):
    async def scenario():
        town = make_town()
        other = make_checkpoint(4, schema=Schema((TensorSpec("w", (9, 9)),)))
        await town.donor("a", other)
        with pytest.raises(MisbehavedError, match="none of this run's model"):
            await town.fetch(["a"], other.state_root)

    run(scenario())


def no_room(*_args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    make_town, run, make_large, monkeypatch
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("a", checkpoint.state)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", no_room)
            with pytest.raises(ConfigurationError, match=r"no room in .* for the \d+ bytes"):
                await town.fetch(["a"], checkpoint.state_root)
        assert town.asked == []
        assert left_over(town) == []
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)

    run(scenario())


def test_a_disk_that_fills_up_meanwhile_is_said_and_the_fetch_can_go_on(
    make_town, run, make_large, monkeypatch
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.donor("a", checkpoint)

        def on_progress(done, total):
            town.note(done, total)
            if len(town.progress) == 4:
                patch.setattr(Path, "open", no_room)

        with monkeypatch.context() as patch:
            words = r"cannot be written to .*No space left on device; mend the disk"
            with pytest.raises(ConfigurationError, match=words):
                await town.fetch(["a"], checkpoint.state_root, on_progress)
        town.progress.clear()
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)
        assert town.progress[0][0] > 0

    run(scenario())


def test_a_file_system_that_promises_no_room_still_works(make_town, run, make_large, monkeypatch):
    def unsupported(*_args):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.donor("a", checkpoint)
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)

    run(scenario())


def test_a_staging_directory_that_cannot_be_made_is_said(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        town.staging.write_text("a file")
        with pytest.raises(ConfigurationError, match=r"cannot be written to .*staging"):
            await town.fetch(["a"], checkpoint.state_root)

    run(scenario())


def test_a_cancelled_fetch_ends_at_once_and_can_go_on(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)

        async def stop(place, frames):
            return frames if len(town.asked) < 4 else await nothing(place, frames)

        await town.stranger("a", checkpoint.state, spoil=stop)
        task = asyncio.create_task(town.fetch(["a"], checkpoint.state_root))
        await asyncio.sleep(5.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await town.stranger("a", checkpoint.state)
        town.progress.clear()
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)
        assert town.progress[0][0] > 0

    run(scenario())


def test_the_longest_header_of_the_model_is_accepted(make_town, run, make_large):
    async def scenario():
        town = make_town()
        checkpoint = make_large(10**15)
        await town.donor("a", checkpoint)
        state = await town.fetch(["a"], checkpoint.state_root)
        assert state.epoch == 10**15

    run(scenario())


def test_a_header_is_json_that_people_can_read(make_large):
    header = make_large(4).state.header("ab" * 32)
    assert json.loads(header.to_bytes())["epoch"] == 4
    assert StateHeader.from_bytes(header.to_bytes()) == header


@given(st.data())
def test_every_chunk_is_got_once_whoever_fails(data):
    shares, got = Shares([(0, i) for i in range(9)]), []
    asked = {donor: [] for donor in "abc"}
    while shares.left and asked:
        donor = data.draw(st.sampled_from(sorted(asked)))
        if asked[donor] and data.draw(st.booleans()):
            place = asked[donor].pop(0)
            if shares.done(place):
                got.append(place)
        elif data.draw(st.integers(0, 9)) == 0:
            shares.release(donor)
            del asked[donor]
        elif (place := shares.take(donor)) is not None:
            assert place not in asked[donor]
            assert place not in got
            asked[donor].append(place)
        else:
            # Whoever is idle waits for others: all that is left was asked of somebody.
            for place in {(0, i) for i in range(9)} - set(got):
                assert any(place in theirs for theirs in asked.values())
    if asked:
        assert sorted(got) == [(0, i) for i in range(9)]
    else:
        assert len(got) + shares.left == 9


def test_what_was_fetched_stays_until_whoever_wanted_it_has_it(make_town, run, make_large, run_id):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("a", checkpoint.state)
        wanted = dataclasses.replace(town.wanted, root=checkpoint.state_root)
        fetched = fetched_snapshot(town.joiner, run_id, wanted, ["a"], town.staging)
        with pytest.raises(Interrupted):
            async with fetched:
                raise Interrupted
        town.asked.clear()
        assert same(await town.fetch([], checkpoint.state_root), checkpoint.state)
        assert town.asked == left_over(town) == []

    run(scenario())


def test_a_state_of_another_epoch_than_was_wanted_is_refused(make_town, run, make_large):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        await town.stranger("a", checkpoint.state)
        town.wanted = dataclasses.replace(town.wanted, epoch=5)
        with pytest.raises(MisbehavedError, match="is of epoch 4, not of 5"):
            await town.fetch(["a"], checkpoint.state_root)
        assert town.asked == []
        town.wanted = dataclasses.replace(town.wanted, epoch=4)
        assert same(await town.fetch(["a"], checkpoint.state_root), checkpoint.state)

    run(scenario())

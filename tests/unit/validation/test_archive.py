"""A kept chain comes back as it was, and nothing that was changed on the disk is believed."""

import json
import shutil

import pytest

from peer.errors import DamagedError, MisbehavedError
from peer.validation.archive import Archive
from peer.validation.judge import build, resume
from peer.validation.rules import Rules
from peer.validation.score import Decision
from peer.validation.verdict import MAX_VERDICT_BYTES, Tip, Verdict


@pytest.fixture(scope="module")
def row(genesis, identities, make_verdict):
    """Return four verdicts of four real peers, one of them a rejection."""
    tip, found = genesis, []
    for worse in (0, 2000, -100, 0):
        verdict, tip = make_verdict(tip, identities, worse)
        found.append(verdict)
    assert [v.judgement.decision for v in found].count(Decision.REJECT) == 1
    return found


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "verdicts")


@pytest.fixture
def full(archive, row):
    for verdict in row:
        archive.keep(verdict)
    return archive


def file_of(archive, verdict):
    (path,) = archive.folder.glob(f"*-{verdict.judgement.hash}.json")
    return path


def tip_after(verdict):
    return Tip(verdict.judgement.after, verdict.judgement.hash)


# ---- what is kept


def test_where_nothing_was_kept_the_chain_is_empty_and_ends_at_genesis(archive, rules, genesis):
    assert archive.chain() == []
    assert list(archive.newest_first()) == []
    assert resume(rules, genesis, archive.chain()) == genesis
    assert archive.get("0" * 64) is None
    assert not archive.folder.exists()


def test_kept_verdicts_come_back_as_a_chain(full, row, rules, genesis):
    again = Archive(full.folder)
    assert again.chain() == row
    assert list(again.newest_first()) == row[::-1]
    assert resume(rules, genesis, again.chain()) == tip_after(row[-1])
    assert [again.get(each.judgement.hash) for each in row] == row


@pytest.mark.parametrize("newest", [1, 2, 4, 9])
def test_of_a_long_chain_the_newest_are_read_and_nothing_else(full, row, rules, genesis, newest):
    for verdict in row[: max(0, len(row) - newest)]:
        file_of(full, verdict).write_bytes(b"junk")
    assert full.chain(newest) == row[-newest:]
    assert resume(rules, genesis, full.chain(newest)) == tip_after(row[-1])


def test_a_flipped_bit_in_the_newest_is_noticed(full, row, rules, genesis):
    path = file_of(full, row[2])
    data = bytearray(path.read_bytes())
    places = range(data.index(b'"judgement":{'), len(data), 997)
    for place in places:
        data[place] ^= 1
        path.write_bytes(data)
        data[place] ^= 1
        chain = full.chain(2)
        try:
            noticed = chain == row[3:] or resume(rules, genesis, chain) is None
        except MisbehavedError:
            noticed = True
        assert noticed, place
    assert len(places) > 10


def test_verdicts_that_are_kept_in_any_order_are_one_chain(archive, row, rules, genesis):
    for place in (2, 0, 1, 3):
        archive.keep(row[place])
    assert archive.chain() == row
    assert resume(rules, genesis, archive.chain()) == tip_after(row[3])


def test_a_replaced_verdict_of_the_same_round_leaves_the_chain_but_can_be_served(
    full, row, rules, genesis, identities, make_case, sign
):
    before = tip_after(row[2])
    better = sign(build(rules, before, make_case(before, identities, worse=-50)), identities)
    assert better.judgement.round == row[3].judgement.round
    full.keep(better)
    assert full.chain() == [*row[:3], better]
    assert resume(rules, genesis, full.chain()) == tip_after(better)
    assert full.get(row[3].judgement.hash) == row[3]


def test_the_same_judgement_with_more_signatures_takes_the_place_of_the_old_one(
    archive, row, identities, sign
):
    archive.keep(sign(row[0].judgement, identities[:3]))
    archive.keep(row[0])
    assert archive.chain() == [row[0]]
    assert len(list(archive.folder.glob("*.json"))) == 1


def test_a_file_half_written_by_a_crash_is_none_of_the_verdicts(full, row):
    (full.folder / f".{file_of(full, row[3]).name}-4711").write_bytes(b"{")
    (full.folder / ".tip-4711").write_bytes(b"00")
    assert full.chain() == row


# ---- what is damaged


def test_a_damaged_file_ends_the_chain_there(full, row, rules, genesis):
    path = file_of(full, row[1])
    path.write_bytes(path.read_bytes()[:-10])
    assert full.chain() == row[2:]
    assert full.get(row[1].judgement.hash) is None
    assert resume(rules, genesis, full.chain()) == tip_after(row[3])
    with pytest.raises(DamagedError, match=path.name):
        list(full.newest_first())


def test_of_a_damaged_newest_file_nothing_is_believed(full, row, rules, genesis):
    file_of(full, row[3]).write_bytes(b"[" * 10**5)
    assert full.chain() == []
    assert resume(rules, genesis, full.chain()) == genesis


def test_a_verdict_under_another_ones_name_is_not_returned(full, row):
    shutil.copy(file_of(full, row[0]), file_of(full, row[1]))
    assert full.get(row[1].judgement.hash) is None
    assert full.chain() == row[2:]


def test_a_verdict_that_cannot_be_opened_or_is_too_large_ends_the_chain(full, row):
    path = file_of(full, row[2])
    path.write_bytes(path.read_bytes() + b" " * MAX_VERDICT_BYTES)
    assert full.chain() == row[3:]
    path.unlink()
    path.mkdir()
    assert full.chain() == row[3:]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"../" * 30,
        b"*" * 64,
        b"0" * 63,
        b"0" * 65,
        "é".encode() * 64,
        b"\0" * 64,
        b"0" * 64,
        b"0" * 10**6,
    ],
)
def test_a_tip_file_of_junk_leaves_an_empty_chain(full, rules, genesis, junk):
    (full.folder / "tip").write_bytes(junk)
    assert full.chain() == []
    assert resume(rules, genesis, full.chain()) == genesis
    with pytest.raises(DamagedError, match="tip"):
        list(full.newest_first())


def test_a_tip_or_a_folder_of_the_wrong_kind_leaves_an_empty_chain(full, rules, genesis):
    (full.folder / "tip").unlink()
    (full.folder / "tip").mkdir()
    assert full.chain() == []
    shutil.rmtree(full.folder)
    full.folder.write_bytes(b"")
    assert resume(rules, genesis, full.chain()) == genesis


@pytest.mark.parametrize("name", ["../tip", "*", "?" * 64, "/etc/passwd", "a/" * 32, "", "\0" * 64])
def test_a_name_with_path_characters_names_no_verdict(full, name):
    assert full.get(name) is None


def test_a_verdict_outside_the_folder_is_not_found(archive, row, tmp_path):
    elsewhere = Archive(tmp_path)
    elsewhere.keep(row[0])
    archive.keep(row[1])
    assert archive.get(row[0].judgement.hash) is None
    assert archive.get(f"../{row[0].judgement.hash}") is None


# ---- what is believed


def test_a_chain_that_was_joined_later_is_followed_from_its_first_verdict(
    archive, row, rules, genesis
):
    for verdict in row[1:]:
        archive.keep(verdict)
    assert archive.chain() == row[1:]
    assert resume(rules, genesis, archive.chain()) == tip_after(row[3])


def forged(archive, verdict, **change):
    """Keep a changed judgement under its own hash, with the signatures of the true one."""
    lie = verdict.judgement.model_copy(update=change)
    lie.__dict__.pop("hash", None)
    archive.keep(Verdict(judgement=lie, assents=verdict.assents))
    return lie


def test_a_tampered_verdict_is_refused(archive, row, rules, genesis):
    archive.keep(row[0])
    for change in ({"decision": Decision.INCONCLUSIVE}, {"epoch": 15}, {"candidate": "ab" * 32}):
        forged(archive, row[1], **change)
        with pytest.raises(MisbehavedError, match="verdict 2 is refused"):
            resume(rules, genesis, archive.chain())


def test_after_the_first_verdict_of_a_chain_that_was_joined_later_nothing_is_believed(
    archive, row, rules, genesis
):
    for verdict in row[1:3]:
        archive.keep(verdict)
    forged(archive, row[3], difference_points=1)
    with pytest.raises(MisbehavedError, match="verdict 4 is refused: its difference_points"):
        resume(rules, genesis, archive.chain())


@pytest.mark.parametrize("kept", [0, 2], ids=["joined late", "from the beginning"])
def test_a_verdict_whose_signatures_were_exchanged_is_refused(archive, row, rules, genesis, kept):
    for verdict in row[:kept]:
        archive.keep(verdict)
    archive.keep(row[2])
    path = file_of(archive, row[2])
    body = json.loads(path.read_bytes())
    for assent in body["assents"][1:]:
        assent["signature"] = assent["signature"][::-1].lstrip("=")
    path.write_text(json.dumps(body))
    assert archive.chain()[-1].judgement == row[2].judgement
    with pytest.raises(MisbehavedError, match="of those called signed it, 3 must"):
        resume(rules, genesis, archive.chain())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run_id": "another-1"}, "another run"),
        ({"round": 1}, "begins"),
        ({"epoch": 7}, "no candidate"),
        ({"seed": "ab" * 32}, "another round"),
        ({"baseline": "ab" * 32}, "another question"),
        ({"decision": Decision.REJECT}, "what it finds"),
        ({"difference_points": 1}, "what it finds"),
        ({"struck": ("1" * 46,)}, "what it finds"),
        ({"previous": "ab" * 32}, "0 of those called signed it"),
    ],
)
def test_of_a_chain_that_was_joined_later_the_first_verdict_is_not_believed_blindly(
    archive, row, rules, genesis, change, reason
):
    forged(archive, row[2], **change)
    with pytest.raises(MisbehavedError, match=reason):
        resume(rules, genesis, archive.chain())


def test_seats_out_of_order_and_a_ledger_of_another_round_are_refused(archive, row, rules, genesis):
    told = row[2].judgement
    after = told.after.model_copy(update={"round": 9})
    for change, reason in (({"seats": told.seats[::-1]}, "seats"), ({"after": after}, "ledger")):
        forged(archive, row[2], **change)
        with pytest.raises(MisbehavedError, match=reason):
            resume(rules, genesis, archive.chain())


def test_a_chain_of_another_run_is_refused(full, genesis):
    other = Rules(run_id="another-1", every_epochs=5, tenure_epochs=5)
    for beginning in (genesis, Tip.genesis("another-1", "ab" * 32)):
        with pytest.raises(MisbehavedError):
            resume(other, beginning, full.chain())

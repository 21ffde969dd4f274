"""An invite survives the ways people hand it on, and whatever else arrives is refused in words."""

import re
import shlex
import string
import urllib.parse
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import ConfigurationError, UsageError
from peer.run import invite as module
from peer.run.invite import Invite, dump_invite, looks_like_invite, parse_invite

ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
RUN = "shakespeare-0123456789abcdef0123456789abcdef"
ADDRESS = f"/ip4/203.0.113.7/tcp/31337/p2p/{ID}"
INVITE = Invite(RUN, (ADDRESS, f"/ip4/192.168.1.7/tcp/31337/p2p/{ID}"), 1_800_000_000)
TEXT = dump_invite(INVITE)
NOW_S = 1_790_000_000.0

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ids = st.text(BASE58, min_size=46, max_size=52)
ip4 = st.ip_addresses(v=4).filter(lambda ip: not ip.is_unspecified)
ip6 = st.ip_addresses(v=6).filter(lambda ip: not ip.is_unspecified)
hosts = ip4.map(lambda ip: f"/ip4/{ip}") | ip6.map(lambda ip: f"/ip6/{ip}")
relays = st.just("") | ids.map(lambda peer_id: f"/p2p/{peer_id}/p2p-circuit")
addresses = st.builds(
    "{}/tcp/{}{}/p2p/{}".format,
    hosts | st.just("/dns4/a.example"),
    st.integers(1, 65535),
    relays,
    ids,
)
run_ids = st.builds(
    "{}-{}".format,
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True),
    st.text("0123456789abcdef", min_size=32, max_size=32),
)
invites = st.builds(
    Invite,
    run_ids,
    st.lists(addresses, min_size=1, max_size=8).map(tuple),
    st.none() | st.integers(int(NOW_S) + 1, 1 << 35),
)


def packed(body):
    """Return an invite of any body, its checksum right, as somebody hostile would make it."""
    packer = zlib.compressobj(level=9, wbits=-15, zdict=module._COMMON)
    data = packer.compress(body) + packer.flush()
    return "ctpeer1" + module._to_base58(module._checksum(data) + data)


@given(invites)
def test_an_invite_says_what_was_put_in(invite):
    assert parse_invite(dump_invite(invite), NOW_S) == invite


@given(invites)
def test_an_invite_is_one_word_that_no_shell_url_or_path_minds(invite):
    text = dump_invite(invite)
    assert set(text) <= set(string.ascii_letters + string.digits)
    assert shlex.quote(text) == text == urllib.parse.quote(text)
    assert looks_like_invite(text)


def test_an_invite_is_short():
    assert len(TEXT) < 200
    assert TEXT.startswith("ctpeer1")


@pytest.mark.parametrize(
    "text", [f"  {TEXT}\n", f"{TEXT[:40]}\r\n  {TEXT[40:]}", "ctpeer1" + "\t".join(TEXT[7:])]
)
def test_white_space_from_a_mail_or_terminal_does_not_matter(text):
    assert parse_invite(text, NOW_S) == INVITE
    assert looks_like_invite(f"  {TEXT}\n")


@given(st.data())
def test_a_mistyped_character_is_noticed(data):
    place = data.draw(st.integers(len("ctpeer1"), len(TEXT) - 1))
    other = data.draw(st.sampled_from([c for c in string.ascii_letters if c != TEXT[place]]))
    wrong = TEXT[:place] + other + TEXT[place + 1 :]
    with pytest.raises(UsageError, match=r"mistyped or cut short: .*copy it again, whole"):
        parse_invite(wrong, NOW_S)
    assert looks_like_invite(wrong)


@given(st.integers(len("ctpeer1"), len(TEXT) - 1))
def test_an_invite_that_is_cut_short_is_noticed(kept):
    with pytest.raises(UsageError, match="mistyped or cut short"):
        parse_invite(TEXT[:kept], NOW_S)


@given(st.integers(len("ctpeer1"), len(TEXT) - 2))
def test_two_characters_in_the_wrong_order_are_noticed(place):
    a, b = TEXT[place], TEXT[place + 1]
    if a != b:
        with pytest.raises(UsageError, match="mistyped"):
            parse_invite(TEXT[:place] + b + a + TEXT[place + 2 :], NOW_S)


@pytest.mark.parametrize(
    "text", ["", "run.toml", "ctpeer", "ctpeer/run.toml", "./ctpeer1", "ctpeer1.toml", "CTPEER1abc",
             "https://example.org", "x" * 10_000, "\x1b[2J"]
)  # fmt: skip
def test_a_path_or_another_text_is_no_invite(text):
    assert not looks_like_invite(text)
    with pytest.raises(UsageError, match="is not an invite: one begins with ctpeer1") as caught:
        parse_invite(text, NOW_S)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", "023456789")
def test_another_format_says_to_update(kind):
    with pytest.raises(ConfigurationError, match=f"is of format {kind}, .*reads format 1; update"):
        parse_invite(f"ctpeer{kind}{TEXT[7:]}", NOW_S)


@pytest.mark.parametrize("now_s", [1_800_000_000, 1_800_000_000.5, 1e12])
def test_an_expired_invite_says_when_and_what_to_do(now_s):
    message = r"to shakespeare-\w+ expired on 2027-01-15 at 08:00 UTC; ask whoever sent it"
    with pytest.raises(ConfigurationError, match=message):
        parse_invite(TEXT, now_s)


def test_an_invite_holds_until_its_end_or_for_ever():
    assert parse_invite(TEXT, 1_799_999_999.9) == INVITE
    assert parse_invite(dump_invite(Invite(RUN, (ADDRESS,))), 1e15).expires_s is None


BAD_ADDRESSES = [
    "",
    "203.0.113.7:31337",
    "/ip4/203.0.113.7/tcp/31337",
    f"/ip4/203.0.113.7/tcp/0/p2p/{ID}",
    f"/ip4/0.0.0.0/tcp/31337/p2p/{ID}",
    f"/ip4/203.0.113.777/tcp/31337/p2p/{ID}",
    f"/ip4/203.0.113.7/tcp/65536/p2p/{ID}",
    f"/ip4/203.0.113.7/tcp/31337/p2p/{ID[:20]}",
    f"/ip4/203.0.113.7/tcp/31337/p2p/{ID}/p2p-circuit",
    f"/unix/tmp/socket/p2p/{ID}",
    f"/ip4/203.0.113.7/tcp/31337/p2p/{ID} --flag",
    f"/ip4/203.0.113.7/tcp/31337/p2p/{ID}\x1b[2J",
    f"/dns4/{'a' * 250}/tcp/31337/p2p/{ID}",
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_an_address_that_leads_nowhere_is_refused_with_what_to_do(address):
    with pytest.raises(UsageError, match=r"the invite's address .*; ask whoever sent it") as caught:
        parse_invite(packed(f"{RUN}\n\n{ADDRESS}\n{address}".encode()), NOW_S)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("count", [0, 9, 200])
def test_too_many_or_no_addresses_are_refused(count):
    body = "\n".join([RUN, "", *[ADDRESS] * count]).encode()
    with pytest.raises(UsageError, match=rf"names one to 8 addresses, this one {count}|mistyped"):
        parse_invite(packed(body), NOW_S)


@pytest.mark.parametrize(
    "run_id", ["", "tiny", "../../etc/passwd", RUN.upper(), RUN + "0", "/" + RUN, f"a{' ' * 50}"]
)
def test_a_run_id_that_is_none_is_refused(run_id):
    with pytest.raises(UsageError, match=r"the invite's run id .* is none; ask whoever sent it"):
        parse_invite(packed(f"{run_id}\n\n{ADDRESS}".encode()), NOW_S)


@pytest.mark.parametrize("end", ["-1", "0", "soon", "1e9", "1" * 30, " 5", "²", "34359738369"])
def test_an_end_that_is_no_time_is_refused(end):
    with pytest.raises(UsageError, match=r"the invite's end is not a time|mistyped"):
        parse_invite(packed(f"{RUN}\n{end}\n{ADDRESS}".encode()), NOW_S)


@pytest.mark.parametrize("body", [b"", b"\n" * 10_000, b"\xff", b"\0" * 2000, b"x" * 1_000_000])
def test_a_body_of_junk_or_a_bomb_is_refused(body):
    with pytest.raises(UsageError):
        parse_invite(packed(body), NOW_S)


def test_another_checksum_is_refused_though_all_else_fits():
    data = module._from_base58(TEXT[7:])
    text = "ctpeer1" + module._to_base58(bytes(4) + data[4:])
    with pytest.raises(UsageError, match="its checksum does not fit"):
        parse_invite(text, NOW_S)


def test_what_hangs_on_behind_is_refused():
    data = module._from_base58(TEXT[7:])[4:] + b"more"
    text = "ctpeer1" + module._to_base58(module._checksum(data) + data)
    with pytest.raises(UsageError, match="mistyped"):
        parse_invite(text, NOW_S)


@given(st.text(max_size=300))
def test_any_text_is_an_invite_or_refused(text):
    for candidate in (text, "ctpeer1" + text):
        with pytest.raises((UsageError, ConfigurationError)):
            parse_invite(candidate, NOW_S)


def test_a_huge_text_is_refused_without_work():
    with pytest.raises(UsageError, match="not an invite"):
        parse_invite("ctpeer1" + "z" * 10_000_000, NOW_S)


@given(st.binary(max_size=200))
def test_base58_keeps_every_byte(data):
    assert module._from_base58(module._to_base58(data)) == data


def test_what_most_strangers_can_use_comes_first():
    near = f"/ip4/192.168.1.7/tcp/1/p2p/{ID}"
    here = f"/ip4/127.0.0.1/tcp/1/p2p/{ID}"
    named = f"/dns4/example.org/tcp/1/p2p/{ID}"
    over = f"/ip4/10.0.0.1/tcp/1/p2p/{ID}/p2p-circuit/p2p/{ID}"
    public = f"/ip4/8.8.8.8/tcp/1/p2p/{ID}"
    invite = Invite.of(RUN, [here, near, named, public, here, over, *BAD_ADDRESSES])
    assert invite.addresses == (named, public, over, near, here)


def test_more_addresses_than_an_invite_holds_are_cut():
    near = [f"/ip4/192.168.1.{i}/tcp/1/p2p/{ID}" for i in range(20)]
    assert Invite.of(RUN, [*near, ADDRESS.replace("203.0.113", "8.8.8")], 5).addresses == (
        ADDRESS.replace("203.0.113", "8.8.8"),
        *near[:7],
    )


def test_without_a_usable_address_there_is_no_invite():
    with pytest.raises(UsageError, match="one to 8 addresses, this one 0"):
        Invite.of(RUN, BAD_ADDRESSES)


def test_every_refusal_is_one_line():
    for text in ("x\ny", TEXT[:50], "ctpeer2abc", packed(b"a\nb\nc")):
        with pytest.raises((UsageError, ConfigurationError)) as caught:
            parse_invite(text, NOW_S)
        assert not re.search(r"[\n\r]", str(caught.value))

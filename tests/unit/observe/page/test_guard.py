import pytest

from peer.observe.page.guard import HEADERS, KEY_HEADER, refuse_host, refuse_key, refuse_origin

HOST = "127.0.0.1:8460"


@pytest.mark.parametrize("host", [HOST, "localhost:8460", "[::1]:8460", "LOCALHOST:9", "localhost"])
def test_a_loopback_name_is_answered_to_on_any_port(host):
    assert refuse_host({"Host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example:8460",
        "192.168.1.2:8460",
        "127.0.0.1.evil.example:8460",
        "localhost.evil.example",
        "127.0.0.2:8460",
        "0.0.0.0:8460",
        "127.0.0.1:8460@evil.example",
        "user@127.0.0.1:8460",
        "[::1]:8460.evil.example",
        "127.0.0.1:",
        "2130706433:8460",
        "localhost:8460, evil.example",
    ],
)
def test_any_other_name_is_refused_in_words(host):
    assert "answers to 127.0.0.1" in refuse_host({"Host": host})


def test_a_command_of_the_page_itself_is_taken():
    headers = {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert refuse_origin(headers) is None


def test_a_command_that_no_browser_sent_is_taken():
    assert refuse_origin({"Host": HOST}) is None


@pytest.mark.parametrize(
    "more",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://localhost:8460"},
        {"Origin": f"https://{HOST}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_command_of_another_site_is_refused_in_words(more):
    assert "another site" in refuse_origin({"Host": HOST} | more)


@pytest.mark.parametrize(
    ("given", "said"), [(None, "missing"), ("", "missing"), ("b", "not this"), ("ä\ud800", "not")]
)
def test_without_the_key_it_is_said_where_the_key_is(given, said):
    headers = {} if given is None else {KEY_HEADER: given}
    refusal = refuse_key(headers, "a")
    assert said in refusal
    assert "ctpeer status" in refusal


def test_with_the_key_nothing_is_refused():
    assert refuse_key({KEY_HEADER: "a"}, "a") is None


def test_no_other_site_may_frame_script_or_read_the_page():
    policy = dict(
        part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Cross-Origin-Resource-Policy"] == "same-origin"

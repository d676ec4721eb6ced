"""The door of a page: names, headers, quota, accounts."""

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest

from mmattn.errors import InputError
from mmattn.ui import guard as guard_module
from mmattn.ui.accounts import check_share, read_accounts
from mmattn.ui.guard import UploadQuota, hosts_of, is_trusted
from mmattn.ui.serve import launch
from mmattn.ui.theme import page
from tests.ui.served import served


def small_page() -> gr.Blocks:
    with page("Demo", "# Demo") as demo:
        text = gr.Textbox()
        text.submit(lambda said: said, text, text, api_name="echo")
    return demo


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(small_page(), trusted=["crane.example.org", "*.lab.example"]) as address:
        yield address


@pytest.mark.parametrize(
    ("header", "host", "is_ours"),
    [
        ("127.0.0.1:7860", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("localhost.", "127.0.0.1", True),
        ("[::1]:7860", "127.0.0.1", True),
        ("192.168.1.5:7860", "127.0.0.1", False),
        ("192.168.1.5:7860", "192.168.1.5", True),
        ("192.168.1.5:7860", "0.0.0.0", True),
        ("[fe80::1]:7860", "::", True),
        ("evil.example", "0.0.0.0", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("x.gradio.live", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        (None, "127.0.0.1", False),
    ],
)
def test_a_server_knows_its_names(header: str | None, host: str, is_ours: bool):
    assert is_trusted(header, hosts_of(host)) == is_ours


def test_a_shared_page_goes_by_its_public_name():
    names = hosts_of("127.0.0.1", share=True)
    assert is_trusted("0a1b.gradio.live", names)
    assert not is_trusted("gradio.live.evil.example", names)


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/heartbeat/x"])
def test_a_foreign_name_is_refused_everywhere(url: str, path: str):
    answer = httpx.get(url + path, headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert "--trusted-host" in answer.text


@pytest.mark.parametrize("name", ["crane.example.org", "a.lab.example"])
def test_a_trusted_name_is_served(url: str, name: str):
    assert httpx.get(url, headers={"Host": name}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/config", "/no/such/page", "/gradio_api/file=/etc/passwd"])
def test_every_answer_has_the_headers(url: str, path: str):
    answer = httpx.get(url + path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "same-origin"


def test_uploads_have_a_quota_for_each_visit(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard_module, "VISIT_BYTES", 50_000)
    with httpx.Client(base_url=url) as client:
        assert client.get("/").status_code == 200
        sent = [
            client.post("/gradio_api/upload", files={"files": ("a.bin", bytes(20_000))}).status_code for _ in range(4)
        ]
    assert sent == [200, 200, 413, 413]
    with httpx.Client(base_url=url) as another:
        another.get("/")
        assert another.post("/gradio_api/upload", files={"files": ("a.bin", bytes(20_000))}).status_code == 200


def test_an_upload_of_unknown_length_is_refused(url: str):
    answer = httpx.post(url + "/gradio_api/upload", content=iter([b"x" * 10]))
    assert answer.status_code == 411


def test_a_quota_is_for_an_hour():
    now = [0.0]
    quota = UploadQuota(lambda: now[0])
    assert quota.take({"a": 10, "all": 15}, 10)
    assert not quota.take({"a": 10, "all": 15}, 1)
    assert quota.take({"b": 10, "all": 15}, 5)
    assert not quota.take({"c": 10, "all": 15}, 1)
    now[0] = 3600.0
    assert quota.take({"a": 10, "all": 15}, 10)


def test_without_an_account_nobody_enters():
    demo = small_page()
    with served(demo, accounts=[("anna", "secret")]) as url, httpx.Client(base_url=url) as client:
        call = {"json": {"data": ["hello"]}}
        for method, path in (("GET", "/config"), ("GET", "/gradio_api/info"), ("POST", "/gradio_api/call/echo"),
                             ("POST", "/gradio_api/upload")):  # fmt: skip
            assert client.request(method, path, **(call if method == "POST" else {})).status_code in (401, 411), path
        assert client.post("/login", data={"username": "anna", "password": "wrong"}).status_code == 400
        assert client.post("/login", data={"username": "anna", "password": "secret"}).status_code == 200
        assert client.post("/gradio_api/call/echo", **call).status_code == 200


def test_a_page_is_not_shared_with_everybody():
    with pytest.raises(InputError, match="anybody on the internet"):
        launch(small_page(), share=True)
    check_share(True, [("anna", "secret")])


def test_accounts_come_from_a_file_or_the_environment(tmp_path: Path):
    file = tmp_path / "accounts"
    file.write_text("# ours\n\nanna:se:cret\nben:x\n")
    assert read_accounts(file, {"MMATTN_AUTH": "c:d"}) == [("anna", "se:cret"), ("ben", "x")]
    assert read_accounts(None, {"MMATTN_AUTH": "c:d"}) == [("c", "d")]
    assert read_accounts(None, {}) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("anna", "Line 1 of .* is no account"), ("a:b\n:x", "Line 2"), ("a:", "Line 1"), ("# none\n", "no account in")],
)
def test_what_is_no_account_is_said_without_repeating_it(tmp_path: Path, text: str, message: str):
    (tmp_path / "accounts").write_text(text)
    with pytest.raises(InputError, match=message):
        read_accounts(tmp_path / "accounts", {})
    with pytest.raises(InputError, match="cannot be read"):
        read_accounts(tmp_path / "missing", {})

from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors

from mmattn.core.weights import hub
from mmattn.core.weights.checkpoint import resolve
from mmattn.core.weights.hub import CHECKPOINT_FILES, OPTIONAL_FILES, HubSource, parse_hub
from mmattn.errors import InputError, WeightsUnavailableError


def test_messages_speak_of_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsUnavailableError, match=r"Codec '.*/no' does not exist\. The codec can be embedded"
    ) as no:
        resolve("lina", tmp_path / "no", what="codec")
    with pytest.raises(InputError, match="For example: --codec hf:owner/name@main"):
        resolve("lina", "hf:owner", what="codec")
    with pytest.raises(WeightsUnavailableError, match="local copy with --codec PATH") as unreachable:
        resolve("lina", "hf:a/b", what="codec")
    assert "--checkpoint" not in f"{no.value} {unreachable.value}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:a/b", HubSource("a/b")),
        ("hf:a/b@v1.0", HubSource("a/b", None, "v1.0")),
        ("hf:a/b/c/d.pth", HubSource("a/b", "c/d.pth")),
        ("hf:a-x/b.y/d.pth@refs/pr/3", HubSource("a-x/b.y", "d.pth", "refs/pr/3")),
    ],
)
def test_hub_sources_are_read(text: str, expected: HubSource) -> None:
    assert parse_hub(text) == expected


@pytest.mark.parametrize("text", ["hf:", "hf:owner", "hf:a/b@", "hf:a b/c", "hf:a/b/"])
def test_a_hub_source_of_another_form_shows_the_form(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a hub source, expected hf:owner/name\[/file\]\[@revision\]"):
        resolve("crane", text)


def test_offline_and_not_cached_says_what_where_and_how() -> None:
    with pytest.raises(WeightsUnavailableError) as caught:
        resolve("crane", "hf:nobody-here/no-such-repo/weights/w.pth@v2")
    text = str(caught.value)
    assert "File 'weights/w.pth' of repository 'nobody-here/no-such-repo' is not in the local cache" in text
    assert "hf download nobody-here/no-such-repo weights/w.pth --revision v2 --local-dir weights" in text
    assert "--checkpoint PATH" in text


def test_an_offline_folder_names_the_three_files_to_fetch() -> None:
    with pytest.raises(
        WeightsUnavailableError, match=r"hf download a/b model\.safetensors config\.json README\.md --l"
    ):
        resolve("crane", "hf:a/b")


def test_an_invalid_repository_name_is_a_usage_error() -> None:
    with pytest.raises(InputError, match=r"is not a valid repository name"):
        resolve("crane", "hf:-a/b--c")


RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.RepositoryNotFoundError("x", response=RESPONSE), "'a/b' is not on the Hugging Face hub, or is private"),
        (errors.RevisionNotFoundError("x", response=RESPONSE), "has no revision 'v9'"),
        (errors.EntryNotFoundError("x"), "has no file 'w.pth'"),
        (errors.HfHubHTTPError("503 busy", response=RESPONSE), "hub refused 'a/b': 503 busy"),
    ],
    ids=["repository", "revision", "file", "server"],
)
def test_answers_of_the_hub_become_one_message(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*args: object, **options: object) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", answer)
    with pytest.raises(WeightsUnavailableError, match=message):
        resolve("crane", "hf:a/b/w.pth@v9")


def test_a_cached_download_is_returned_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def snapshot(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((repo, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert resolve("crane", "hf:a/b@main") == tmp_path
    assert calls == [("a/b", "main", CHECKPOINT_FILES + OPTIONAL_FILES)]

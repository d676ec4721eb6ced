from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors

from mmattn.core.weights import resolver
from mmattn.core.weights.resolver import CHECKPOINT_FILES, OPTIONAL_FILES, HubSource, embedded_path, parse_hub, resolve
from mmattn.errors import InputError, WeightsUnavailableError


def test_embedded_is_the_folder_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded_path("crane").parts[-3:] == ("mmattn", "assets", "crane")
    monkeypatch.setattr(resolver, "files", lambda package: tmp_path)
    folder = tmp_path / "assets" / "crane"
    folder.mkdir(parents=True)
    with pytest.raises(WeightsUnavailableError, match=r"no embedded crane model \(looked in .*--checkpoint PATH"):
        resolve("crane", "embedded")
    (folder / "model.safetensors").write_bytes(b"")
    assert resolve("crane", "embedded") == folder


def test_a_path_is_returned_and_a_missing_one_named(tmp_path: Path) -> None:
    assert resolve("crane", tmp_path) == tmp_path
    with pytest.raises(
        WeightsUnavailableError, match=r"Checkpoint '.*/no' does not exist\. The checkpoint can be embedded"
    ):
        resolve("crane", tmp_path / "no")


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


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("crane", "~/model") == tmp_path / "model"


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

    monkeypatch.setattr(resolver, "hf_hub_download", answer)
    with pytest.raises(WeightsUnavailableError, match=message):
        resolve("crane", "hf:a/b/w.pth@v9")


def test_a_cached_download_is_returned_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def snapshot(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((repo, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(resolver, "snapshot_download", snapshot)
    assert resolve("crane", "hf:a/b@main") == tmp_path
    assert calls == [("a/b", "main", CHECKPOINT_FILES + OPTIONAL_FILES)]

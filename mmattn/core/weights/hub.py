"""Checkpoints on the Hugging Face hub: ``hf:owner/name[/file][@revision]`` turned into a local copy.

What is missing is told with the command that fetches it and the option that takes a local copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mmattn.errors import InputError, WeightsUnavailableError

__all__ = ["HubSource", "download", "parse_hub"]

CHECKPOINT_FILES = ["model.safetensors", "config.json", "README.md"]
OPTIONAL_FILES = ["tokenizer.json", "voices/*.safetensors"]
"""What a checkpoint folder may hold besides: models that speak have these."""

HUB_PATTERN = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class HubSource:
    """A place on the Hugging Face hub.

    Attributes:
        repo: ``owner/name``.
        file: Path of one file in the repository; None is the whole checkpoint folder.
        revision: Branch, tag or commit; None is the default branch.
    """

    repo: str
    file: str | None = None
    revision: str | None = None


def parse_hub(source: str, what: str = "checkpoint") -> HubSource:
    """Reads ``"hf:owner/name[/file][@revision]"``; ``what`` is the option in the message.

    Raises:
        InputError: If the text has another form.

    >>> parse_hub("hf:someone/crane/weights/visa.pth@v1")
    HubSource(repo='someone/crane', file='weights/visa.pth', revision='v1')
    """
    match = HUB_PATTERN.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source!r} is not a hub source, expected hf:owner/name[/file][@revision].",
            f"For example: --{what} hf:owner/name@main",
        )
    return HubSource(match["repo"], match["file"], match["revision"])


def download(source: HubSource, what: str = "checkpoint") -> Path:
    """Returns the local copy of a hub source, fetching it into huggingface_hub's cache when it is not there yet.

    Raises:
        InputError: If the name is no repository's.
        WeightsUnavailableError: If the hub cannot be reached, or has no such repository, revision or file.
    """
    try:
        if source.file is not None:
            return Path(hf_hub_download(source.repo, source.file, revision=source.revision))
        wanted = CHECKPOINT_FILES + OPTIONAL_FILES
        return Path(snapshot_download(source.repo, revision=source.revision, allow_patterns=wanted))
    except HFValidationError as error:
        raise InputError(f"{source.repo!r} is not a valid repository name: {error}", "Expected owner/name.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise unreachable(source, what) from error
    except RevisionNotFoundError as error:
        revision = source.revision or "the default branch"
        message = f"Repository {source.repo!r} on the Hugging Face hub has no revision {revision!r}."
        raise WeightsUnavailableError(message, "Use a branch, tag or commit that its page lists.") from error
    except RepositoryNotFoundError as error:
        raise WeightsUnavailableError(
            f"Repository {source.repo!r} is not on the Hugging Face hub, or is private or gated.",
            "Check the name; for a private or gated one accept its terms and log in with: hf auth login",
        ) from error
    except EntryNotFoundError as error:
        message = f"Repository {source.repo!r} on the Hugging Face hub has no file {source.file!r}."
        raise WeightsUnavailableError(message, "Check the file's path on the repository's page.") from error
    except HfHubHTTPError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        message = f"The Hugging Face hub refused {source.repo!r}: {reason}"
        raise WeightsUnavailableError(message, f"Try again later, or pass a local copy with --{what} PATH.") from error


def unreachable(source: HubSource, option: str = "checkpoint") -> WeightsUnavailableError:
    """Returns the error for a source that is not cached while the hub cannot be asked."""
    what = f"File {source.file!r} of" if source.file else "The checkpoint in"
    revision = f" --revision {source.revision}" if source.revision else ""
    command = f"hf download {source.repo} {source.file or ' '.join(CHECKPOINT_FILES)}{revision} --local-dir weights"
    return WeightsUnavailableError(
        f"{what} repository {source.repo!r} is not in the local cache, and the Hugging Face hub cannot be reached "
        "(no network, or HF_HUB_OFFLINE is set).",
        f"Where there is a network run: {command}; then pass the local copy with --{option} PATH.",
    )

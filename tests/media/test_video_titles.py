from pathlib import Path

import pytest

from mmattn.media.video import open_video
from mmattn.media.video_index import open_container


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_title_that_is_not_utf_8_does_not_matter(suffix: str) -> None:
    path = Path(__file__).parent / f"latin1_title.{suffix}"
    with open_video(path, "pyav") as reader:
        assert len(list(reader.iter_frames())) == len(reader) > 0
    with open_container(path) as container:
        assert container.metadata["title"] == "caf\ufffd"

import errno
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import MediaError
from mmattn.media.video import open_video
from mmattn.media.video_writer import VideoWriter

av = pytest.importorskip("av", reason="video needs PyAV")


def frame(color: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (64, 96)) -> np.ndarray:
    return np.full((*size, 3), color, dtype=np.uint8)


def test_the_file_is_what_browsers_play(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 29.97, comment="made by a test") as writer:
        for _ in range(4):
            writer.write(frame())
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (64, 96)
        assert float(stream.average_rate) == pytest.approx(29.97, abs=1e-3)
        assert stream.codec_context.colorspace == 1
        assert container.metadata["comment"] == "made by a test"
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50), (0, 0, 0), (255, 255, 255)])
def test_colours_survive(tmp_path: Path, color: tuple[int, int, int]) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, crf=8) as writer:
        for _ in range(3):
            writer.write(frame(color))
    with open_video(tmp_path / "a.mp4", "pyav") as reader:
        np.testing.assert_allclose(reader.get_batch([2])[0, 30, 40].astype(int), color, atol=3)


@pytest.mark.parametrize("size", [(63, 95), (1, 1), (64, 95), (63, 96)])
def test_odd_sizes_are_extended_by_repeating_the_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, size=size) as writer:
        writer.write(frame((90, 90, 90), size))
    with open_video(tmp_path / "a.mp4", "pyav") as reader:
        assert reader.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        np.testing.assert_allclose(reader.get_batch([0]).astype(int), 90, atol=3)


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(frame())
    assert not (tmp_path / "a.mp4").exists()
    writer.close()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert writer.num_frames == 1


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_is_left_after_an_exception(tmp_path: Path, count: int) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "a.mp4", 25) as writer:
            for _ in range(count):
                writer.write(frame())
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("old")
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(frame())
    writer.abort()
    assert (tmp_path / "a.mp4").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


class FullDisk:
    """An encoder's container on a disk without space."""

    def mux(self, packets: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        pass


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(frame())
    writer._container.close()
    writer._container = FullDisk()
    with pytest.raises(MediaError, match=r"a\.mp4: the disk is full"):
        writer.write(frame())
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_frames_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no frame was given"):
        VideoWriter(tmp_path / "a.mp4", 25).close()
    assert list(tmp_path.iterdir()) == []


def test_frames_have_one_size(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame())
        with pytest.raises(ValueError, match=r"Frame 1 is \(32, 32\), the video is \(64, 96\)"):
            writer.write(frame(size=(32, 32)))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 4, 3), dtype=np.float32)], ids=["grey", "float"]
)
def test_frames_are_8_bit_rgb(tmp_path: Path, array: np.ndarray) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    with pytest.raises(ValueError, match=r"uint8 RGB frame \(H, W, 3\)"):
        writer.write(array)
    writer.abort()


def test_a_closed_writer_takes_no_frames(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame())
    with pytest.raises(MediaError, match="is closed"):
        writer.write(frame())


def test_rate_and_size_have_to_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fps must be a positive number, got 0"):
        VideoWriter(tmp_path / "a.mp4", 0)
    with pytest.raises(ValueError, match="size must be positive"):
        VideoWriter(tmp_path / "a.mp4", 25, size=(0, 10))
    assert list(tmp_path.iterdir()) == []

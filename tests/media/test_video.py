import multiprocessing
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import MediaError, MediaNotFoundError
from mmattn.media.video import Backend, VideoReader, is_video, open_video, sample_times
from mmattn.media.video_readers import DecordReader, PyAVReader
from mmattn.media.video_writer import VideoWriter

av = pytest.importorskip("av", reason="video needs PyAV")
pytest.importorskip("decord", reason="half of the cases need decord")

LEVELS = np.arange(40) * 6
BACKENDS: tuple[Backend, ...] = ("decord", "pyav", "auto")


def grey(level: int, height: int = 64, width: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame i has the grey level 6 i; a key frame every 12 frames, B-frames between."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    with VideoWriter(path, 25, key_interval=12, crf=4) as writer:
        for level in LEVELS.tolist():
            writer.write(grey(level))
    return path


def encode(
    path: Path,
    levels: Sequence[int],
    codec: str,
    pts: Sequence[int] | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Writes grey frames with PyAV directly; ``pts`` in milliseconds makes the frame rate variable."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 64, pix_fmt, 2_000_000
        if codec != "gif":
            stream.codec_context.gop_size = 12
        if codec in {"libx264", "mpeg4", "mpeg2video"}:
            stream.codec_context.max_b_frames = 2
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(grey(level), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def levels_of(batch: np.ndarray) -> np.ndarray:
    return np.asarray(batch[:, 8:-8, 8:-8].mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("backend", BACKENDS)
class TestEveryBackend:
    def test_reports_length_rate_size_and_times(self, ramp: Path, backend: Backend) -> None:
        with open_video(ramp, backend) as reader:
            assert len(reader) == 40
            assert reader.fps == pytest.approx(25)
            assert reader.size == (64, 128)
            np.testing.assert_allclose(reader.timestamps, np.arange(40) / 25, atol=1e-6)
            assert reader.timestamps.dtype == np.float64

    @pytest.mark.parametrize(
        "indices",
        [[0], [39], [5, 6, 7], [30, 2, 17], [7, 7, 7, 0, 7], [-1, -40, 3], [11, 12, 13, 11], list(range(39, -1, -1))],
        ids=str,
    )
    def test_returns_the_frames_asked_for_in_that_order(self, ramp: Path, backend: Backend, indices: list[int]) -> None:
        with open_video(ramp, backend) as reader:
            batch = reader.get_batch(indices)
            assert batch.dtype == np.uint8
            assert batch.shape == (len(indices), 64, 128, 3)
            np.testing.assert_allclose(levels_of(batch), LEVELS[indices], atol=2)

    def test_answers_do_not_depend_on_what_was_asked_before(self, ramp: Path, backend: Backend) -> None:
        order = np.random.default_rng(0).permutation(40)
        with open_video(ramp, backend) as reader:
            for number in order.tolist():
                assert levels_of(reader.get_batch([number]))[0] == pytest.approx(LEVELS[number], abs=2)

    def test_iterates_over_all_frames(self, ramp: Path, backend: Backend) -> None:
        with open_video(ramp, backend) as reader:
            frames = np.stack(list(reader.iter_frames()))
        np.testing.assert_allclose(levels_of(frames), LEVELS, atol=2)

    def test_no_indices_give_an_empty_batch(self, ramp: Path, backend: Backend) -> None:
        with open_video(ramp, backend) as reader:
            assert reader.get_batch([]).shape == (0, 64, 128, 3)

    @pytest.mark.parametrize("index", [40, -41])
    def test_a_frame_outside_is_an_index_error(self, ramp: Path, backend: Backend, index: int) -> None:
        with open_video(ramp, backend) as reader, pytest.raises(IndexError, match=rf"Frame {index} is outside .*40"):
            reader.get_batch([0, index])

    def test_frame_numbers_are_integers(self, ramp: Path, backend: Backend) -> None:
        with open_video(ramp, backend) as reader, pytest.raises(TypeError, match="flat list of integers, got float64"):
            reader.get_batch([0.5])  # type: ignore[list-item]

    def test_a_closed_reader_says_so(self, ramp: Path, backend: Backend) -> None:
        reader = open_video(ramp, backend)
        reader.close()
        reader.close()
        with pytest.raises(MediaError, match="is closed"):
            reader.get_batch([0])

    def test_a_pickled_reader_opens_the_file_again(self, ramp: Path, backend: Backend) -> None:
        with open_video(ramp, backend) as reader:
            reader.get_batch([20])
            copy = pickle.loads(pickle.dumps(reader))
        np.testing.assert_allclose(levels_of(copy.get_batch([3, 1])), [18, 6], atol=2)

    def test_a_reader_works_in_a_forked_worker_and_after_it(self, ramp: Path, backend: Backend) -> None:
        with open_video(ramp, backend, num_threads=2) as reader:
            reader.get_batch([20])
            queue = multiprocessing.get_context("fork").SimpleQueue()
            worker = multiprocessing.get_context("fork").Process(target=_read_in_worker, args=(reader, queue))
            worker.start()
            worker.join(timeout=30)
            assert worker.exitcode == 0
            np.testing.assert_allclose(queue.get(), [18, 6], atol=2)
            np.testing.assert_allclose(levels_of(reader.get_batch([21])), [126], atol=2)

    def test_variable_frame_rates_keep_their_true_times(self, tmp_path: Path, backend: Backend) -> None:
        pts = [0, 40, 100, 400, 420, 1000, 1500, 1510]
        path = encode(tmp_path / "vfr.mp4", LEVELS[:8].tolist(), "libx264", pts)
        with open_video(path, backend) as reader:
            np.testing.assert_allclose(reader.timestamps, np.array(pts) / 1000, atol=1e-4)
            assert reader.fps == pytest.approx(7 / 1.51, rel=1e-3)
            np.testing.assert_allclose(levels_of(reader.get_batch([6, 2, 7])), LEVELS[[6, 2, 7]], atol=2)

    def test_rotation_is_applied(self, tmp_path: Path, backend: Backend) -> None:
        frame = grey(0)
        frame[:16, :32] = 255
        path = tmp_path / "phone.mp4"
        with VideoWriter(path, 25) as writer:
            for _ in range(3):
                writer.write(frame)
        _turn_clockwise(path)
        with open_video(path, backend) as reader:
            assert reader.size == (128, 64)
            shown = reader.get_batch([1])[0]
        np.testing.assert_allclose(shown.astype(int), np.rot90(frame, -1), atol=6)

    def test_a_missing_file_is_named(self, tmp_path: Path, backend: Backend) -> None:
        with pytest.raises(MediaNotFoundError, match=r"There is no file .*gone\.mp4"):
            open_video(tmp_path / "gone.mp4", backend)

    @pytest.mark.parametrize("kept", [0.3, 0.9])
    def test_a_truncated_file_is_refused(self, ramp: Path, tmp_path: Path, backend: Backend, kept: float) -> None:
        data = ramp.read_bytes()
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(MediaError, match=r"cut\.mp4 (is truncated|cannot be read)"):
            open_video(path, backend)

    def test_a_file_that_is_cut_short_is_read_as_far_as_it_goes_where_that_is_asked_for(
        self, ramp: Path, tmp_path: Path, backend: Backend
    ) -> None:
        path = tmp_path / "cut.mp4"
        with open_video(ramp, backend) as whole:
            count, first = len(whole), whole.get_batch([0])
        # With its index in front, so that the index is there when the end is not.
        faststart(ramp, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
        with pytest.raises(MediaError, match=rf"cut\.mp4 is truncated: it promises {count} frames and has \d+"):
            open_video(path, backend)
        if backend == "decord":
            with pytest.raises(MediaError, match="decord cannot open"):
                open_video(path, backend, cut_short=True)
            return
        with open_video(path, backend, cut_short=True) as reader:
            assert 0 < len(reader) < count
            assert reader.missing == count - len(reader)
            np.testing.assert_array_equal(reader.get_batch([0]), first)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: path.write_bytes(b""), "is empty"),
            (lambda path: path.write_text("hello" * 99), "cannot be read as a video"),
            (lambda path: path.mkdir(), "is a folder"),
            (lambda path: _write_sound(path), r"has no video stream \(it has: audio\)"),
        ],
        ids=["empty", "text", "folder", "sound"],
    )
    def test_other_things_are_no_video(
        self, tmp_path: Path, backend: Backend, make: Callable[[Path], object], message: str
    ) -> None:
        path = tmp_path / "thing.mp4"
        make(path)
        with pytest.raises(MediaError, match=message):
            open_video(path, backend)


@pytest.mark.parametrize("width", [16, 24, 48, 72])
def test_widths_that_decord_misreads_are_refused_by_it_alone(tmp_path: Path, width: int) -> None:
    path = tmp_path / "narrow.mp4"
    with VideoWriter(path, 25) as writer:
        for level in (0, 100, 200):
            writer.write(grey(level, 32, width))
    with pytest.raises(MediaError, match='backend="pyav"'):
        open_video(path, "decord")
    with open_video(path) as reader:
        assert isinstance(reader, PyAVReader)
        assert reader.size == (32, width)
        np.testing.assert_allclose(reader.get_batch([2])[0, 16, 8], 200, atol=2)


def test_decord_is_used_only_where_it_is_asked_for(ramp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_video(ramp, "decord") as reader:
        assert isinstance(reader, DecordReader)
    monkeypatch.setitem(sys.modules, "decord", None)  # not installed
    with open_video(ramp) as reader:
        assert isinstance(reader, PyAVReader)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.avi", "mpeg4", "yuv420p"),
        ("b-frames.avi", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.gif", "gif", "gray"),
    ],
)
def test_every_container_gives_the_right_frames(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = encode(tmp_path / name, LEVELS.tolist(), codec, pix_fmt=pix_fmt)
    with open_video(path) as reader:
        np.testing.assert_allclose(reader.timestamps, np.arange(40) / 25, atol=1e-3)
        for indices in ([39, 3, 17, 18, 0], [1], list(range(40))):
            np.testing.assert_allclose(levels_of(reader.get_batch(indices)), LEVELS[indices], atol=4)


def test_decord_is_refused_where_it_returns_neighbouring_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", LEVELS.tolist(), "mpeg4")
    with pytest.raises(MediaError, match="wrong frames"):
        open_video(path, "decord")


def test_opencv_still_decodes_png_after_a_video_was_read(ramp: Path) -> None:
    pytest.importorskip("cv2", reason="it is OpenCV that decord breaks when loaded first")
    script = (
        f"from mmattn.media.video import open_video; open_video({str(ramp)!r}, 'decord')\n"
        "import cv2, numpy; data = cv2.imencode('.png', numpy.full((4, 4, 3), 7, numpy.uint8))[1]\n"
        "print(cv2.imdecode(data, -1).max())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7"


def test_open_groups_of_pictures_are_read_right_and_refused_for_decord(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0"}
    path = encode(tmp_path / "open.mp4", LEVELS.tolist(), "libx264", options=options)
    with pytest.raises(MediaError, match="groups of pictures are open"):
        open_video(path, "decord")
    with open_video(path) as reader:
        for number in np.random.default_rng(0).permutation(40).tolist():
            assert levels_of(reader.get_batch([number]))[0] == pytest.approx(LEVELS[number], abs=3)


def test_both_backends_return_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    generator = np.random.default_rng(0)
    with VideoWriter(path, 25) as writer:
        for _ in range(5):
            writer.write(generator.integers(0, 256, (64, 128, 3), dtype=np.uint8))
    with open_video(path, "decord") as first, open_video(path, "pyav") as second:
        difference = first.get_batch(range(5)).astype(int) - second.get_batch(range(5))
    assert np.abs(difference).max() <= 2


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "one.mp4", 10) as writer:
        writer.write(grey(50))
    with open_video(tmp_path / "one.mp4") as reader:
        assert len(reader) == 1
        assert reader.fps == pytest.approx(10)
        assert reader.timestamps.tolist() == [0]
        assert sample_times(reader, 2).tolist() == [0]


def test_an_unknown_backend_is_refused(ramp: Path) -> None:
    with pytest.raises(ValueError, match=r"no video backend 'opencv'\. Expected one of auto, decord, pyav"):
        open_video(ramp, "opencv")  # type: ignore[arg-type]


class Times:
    """A stand-in for a reader that has only times."""

    def __init__(self, timestamps: Sequence[float]) -> None:
        self.timestamps = np.array(timestamps)


@pytest.mark.parametrize(
    ("timestamps", "fps", "expected"),
    [
        (np.arange(10) / 10, 10, list(range(10))),
        (np.arange(10) / 10, 5, [0, 2, 4, 6, 8]),
        (np.arange(4) / 10, 20, [0, 0, 1, 1, 2, 2, 3]),
        ([0, 0.04, 0.1, 0.4, 0.42, 1.0, 1.5, 1.51], 2, [0, 4, 5, 6]),
        (np.arange(301) / 30, 1, list(range(0, 301, 30))),
        (np.arange(4) + 7.5, 1, [0, 1, 2, 3]),
        ([3.0], 8, [0]),
    ],
    ids=["same-rate", "half", "ties-take-the-earlier", "variable", "one-a-second", "late-start", "one-frame"],
)
def test_samples_are_the_frames_nearest_to_regular_times(
    timestamps: Sequence[float], fps: float, expected: list[int]
) -> None:
    reader: Any = Times(timestamps)
    assert sample_times(reader, fps).tolist() == expected


@pytest.mark.parametrize("fps", [0, -1, np.nan, np.inf])
def test_sampling_needs_a_positive_rate(fps: float) -> None:
    reader: Any = Times([0.0])
    with pytest.raises(ValueError, match="fps must be a positive number"):
        sample_times(reader, fps)


def test_video_names_are_told_from_others() -> None:
    assert [name for name in ("a.mp4", "b.MOV", "c.png", "mp4") if is_video(name)] == ["a.mp4", "b.MOV"]


def _read_in_worker(reader: VideoReader, queue: Any) -> None:
    queue.put(levels_of(reader.get_batch([3, 1])))


def faststart(source: Path, target: Path) -> None:
    """Writes a video with its index before its frames, as cameras and servers do."""
    options = {"movflags": "faststart"}
    with av.open(str(source)) as read, av.open(str(target), "w", format="mp4", options=options) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)


def _turn_clockwise(path: Path) -> None:
    """Writes a rotation into the track header, where phones put it (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(data)


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

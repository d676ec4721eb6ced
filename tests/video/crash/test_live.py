"""Cameras and streams: reconnection over a loopback server that drops, and files written as it goes."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mmattn.cli import main
from mmattn.errors import InputError
from mmattn.media.stream.live_source import LiveFrame, LiveSource, Notice
from mmattn.media.video_writer import VideoWriter
from mmattn.video.crash.live import watch
from tests.video.crash.tiny_door import drive, glancing_predictor, save_embedded


@contextmanager
def server(content: bytes, *, drops: int = 0, share: float = 0.5) -> Iterator[tuple[str, list[int]]]:
    """Serves a file over HTTP; the first ``drops`` answers promise all of it and end after a share."""
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            part = content if len(sent) >= drops else content[: int(share * len(content))]
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            sent.append(len(part))
            try:
                self.wfile.write(part)
            except OSError:
                return
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/road.mp4", sent
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 noisy frames, many bytes each, so that half of the file has about half of the frames."""
    path = tmp_path_factory.mktemp("film") / "road.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 10.0, key_interval=10) as writer:
        for frame in drive(60):
            writer.write(np.clip(frame + rng.normal(0, 20, frame.shape), 0, 255).astype(np.uint8))
    return path


def events(source: LiveSource) -> tuple[list[LiveFrame], list[str]]:
    found = list(source)
    return [e for e in found if isinstance(e, LiveFrame)], [e.text for e in found if isinstance(e, Notice)]


def test_a_file_is_read_to_its_end_with_its_own_times(film: Path):
    frames, notices = events(LiveSource(str(film)))
    assert notices == []
    assert len(frames) == 60
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(60) / 10, atol=1e-4)
    assert frames[0].picture.shape == (66, 90, 3)


def test_an_address_is_a_network_stream_a_number_a_camera_and_the_rest_a_file():
    kinds = [LiveSource(text).kind for text in ("0", "/dev/video2", "rtsp://x/y", "HTTP://x", "road.mp4", "a:b.mp4")]
    assert kinds == ["camera", "camera", "network", "network", "file", "file"]


def test_a_recording_over_http_that_is_whole_ends(film: Path):
    with server(film.read_bytes()) as (address, sent):
        frames, notices = events(LiveSource(address))
    assert (len(frames), notices, len(sent)) == (60, [], 1)


def test_a_stream_that_drops_is_resumed_after_the_gap(film: Path):
    with server(film.read_bytes(), drops=2) as (address, sent):
        frames, notices = events(LiveSource(address, sleep=lambda _: None))
    assert len(sent) >= 3
    assert len(frames) > 100
    times = [frame.time for frame in frames]
    assert (np.diff(times) > 0).all()
    lost = [text for text in notices if text.startswith("The stream was lost at ")]
    assert len(lost) == 2
    assert all(text.endswith("Connecting again.") for text in lost)
    assert sum(text.startswith("Connected again after ") for text in notices) == 2


def test_a_stream_that_does_not_come_back_is_given_up(film: Path):
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with server(film.read_bytes(), drops=99) as (address, _):
        source = LiveSource(address, patience=5.0, clock=lambda: now[0], sleep=sleep)
        found = iter(source)
        while not isinstance(event := next(found), Notice):
            last = event.time
    assert "The stream was lost" in event.text
    with pytest.raises(InputError, match=r"was lost and did not come back in 5 s"):
        next(found)
    assert now[0] > 5.0
    assert last > 1.0


def test_a_stream_that_opens_and_gives_nothing_is_given_up():
    now = [0.0]
    source = LiveSource(
        "http://nowhere", patience=3.0, clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)
    )

    class Silent:
        duration = None

        def close(self) -> None:
            """Closes."""

    source._open = Silent  # type: ignore[method-assign]
    source._frames = lambda container, start: iter(())  # type: ignore[method-assign]
    with pytest.raises(InputError, match="it gave no frame"):
        list(source)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("99", "'99' cannot be opened"),
        ("missing.mp4", "'missing.mp4' cannot be opened: no such file"),
        ("http://127.0.0.1:1/x", "cannot be opened: connection refused"),
    ],
)
def test_what_cannot_be_opened_is_said_at_once(address: str, message: str):
    with pytest.raises(InputError) as error:
        next(iter(LiveSource(address)))
    assert message in str(error.value)
    assert "Check" in error.value.hint


def frames_of(times: list[float]) -> list[LiveFrame | Notice]:
    return [LiveFrame(frame, time) for frame, time in zip(drive(len(times)), times, strict=True)]


def test_watching_writes_every_step_and_alert_at_once(tmp_path: Path):
    predictor = glancing_predictor(alert_threshold=0.0, persistence=5, cooldown=0.0)
    told = io.StringIO()
    source = [*frames_of([i / 10 for i in range(8)]), Notice("hello")]
    assert watch(predictor, source, tmp_path / "out", echo=told) == 1
    rows = list(csv.DictReader((tmp_path / "out/risk.csv").open()))
    assert [float(row["seconds"]) for row in rows] == pytest.approx(np.arange(8) / 10)
    assert [row["alert"] for row in rows] == list("00001000")
    (alert,) = [json.loads(line) for line in (tmp_path / "out/alerts.jsonl").open()]
    assert (alert["time"], alert["picture"]) == (0.4, "alert_0001.png")
    assert (tmp_path / "out/alert_0001.png").is_file()
    assert "0.4 s: ALERT" in told.getvalue()
    assert "hello" in told.getvalue()


def test_a_long_gap_starts_over_and_says_so(tmp_path: Path):
    told = io.StringIO()
    times = [0.0, 0.1, 0.2, 0.9, 5.0, 5.1]
    watch(glancing_predictor(), frames_of(times), tmp_path / "out", echo=told)
    rows = list(csv.DictReader((tmp_path / "out/risk.csv").open()))
    assert [row["seconds"] for row in rows if row["restarted"] == "1"] == ["5.000"]
    assert "5.0 s: the gap was long, starting over." in told.getvalue()


def test_lost_frames_do_not_end_a_watch_and_seconds_do(tmp_path: Path):
    source: list[LiveFrame | Notice] = [LiveFrame(None, 0.0), *frames_of([0.1 + i / 10 for i in range(30)])]
    watch(glancing_predictor(), source, tmp_path / "out", seconds=1.0, echo=io.StringIO())
    rows = list(csv.DictReader((tmp_path / "out/risk.csv").open()))
    assert len(rows) == 10


def test_an_earlier_run_is_not_overwritten_unasked(tmp_path: Path):
    watch(glancing_predictor(), frames_of([0.0]), tmp_path / "out", echo=io.StringIO())
    with pytest.raises(InputError, match=r"holds an earlier run \(risk.csv, alerts.jsonl\)"):
        watch(glancing_predictor(), frames_of([0.0]), tmp_path / "out", echo=io.StringIO())
    watch(glancing_predictor(), frames_of([0.0, 0.1]), tmp_path / "out", overwrite=True, echo=io.StringIO())
    assert len((tmp_path / "out/risk.csv").read_text().splitlines()) == 3


def test_what_was_written_stays_when_the_stream_is_given_up(tmp_path: Path):
    def broken() -> Iterator[LiveFrame | Notice]:
        yield from frames_of([0.0, 0.1, 0.2])
        raise InputError("given up")

    with pytest.raises(InputError, match="given up"):
        watch(glancing_predictor(), broken(), tmp_path / "out", echo=io.StringIO())
    assert len((tmp_path / "out/risk.csv").read_text().splitlines()) == 4


def test_the_command_watches_a_stream_that_drops(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = save_embedded(tmp_path / "model")
    with server(film.read_bytes(), drops=1) as (address, _):
        code = main(["infer", "crash", "--live", address, "--output", str(tmp_path / "out"), "--checkpoint", model,
                     "--device", "cpu", "--alert-threshold", "0", "--cooldown", "0"])  # fmt: skip
    assert code == 0
    err = capsys.readouterr().err
    assert "The stream was lost at" in err
    assert "alerts -> " in err
    rows = list(csv.DictReader((tmp_path / "out/risk.csv").open()))
    assert len(rows) > 70
    assert (tmp_path / "out/alert_0001.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--live", "0", "x.mp4"], "--live 0 takes no INPUT"),
        (["--live-seconds", "3", "x.mp4"], "expected a positive number beside --live"),
        (["--live", "0", "--live-seconds", "-1"], "--live-seconds is -1.0"),
        ([], "the following arguments are required: INPUT"),
        (["--live", "nowhere.mp4", "--checkpoint", "none"], "Checkpoint 'none' does not exist"),
    ],
)
def test_wrong_words_end_with_one_message(tmp_path: Path, words: list[str], message: str, capsys):
    assert main(["infer", "crash", "--output", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_opens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["infer", "crash", "--live", "0", "--dry-run", "--output", str(tmp_path / "out")]) == 0
    assert "would watch the camera 0; nothing was opened." in capsys.readouterr().out
    assert not (tmp_path / "out").exists()

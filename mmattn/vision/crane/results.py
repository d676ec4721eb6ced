"""What Crane says about a picture or a video: arrays and numbers that can be saved, drawn and sent as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mmattn.media.files import atomic_path
from mmattn.media.image import write_png
from mmattn.media.video_writer import VideoWriter
from mmattn.viz.heatmap import contour, overlay

__all__ = ["CraneResult", "CraneVideoResult", "resize_map"]

CONTOUR_COLOR = (0, 229, 255)


def resize_map(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the map (h, w) float32 resized bilinearly to ``size`` (H, W)."""
    height, width = size
    picture = Image.fromarray(anomaly_map.astype(np.float32), mode="F")
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def _outlined(
    image: np.ndarray, anomaly_map: np.ndarray, threshold: float, display_range: Literal["fixed", "image"]
) -> np.ndarray:
    """Heat map over the picture with the outline of everything above the threshold."""
    resized = resize_map(anomaly_map, (image.shape[0], image.shape[1]))
    limits: tuple[float | None, float | None] = (0.0, 1.0) if display_range == "fixed" else (None, None)
    blended = overlay(image, resized, vmin=limits[0], vmax=limits[1], alpha=0.75, fade=True)
    return contour(blended, resized > threshold, CONTOUR_COLOR, max(1, round(max(image.shape[:2]) / 320)))


@dataclass(frozen=True)
class CraneResult:
    """One picture.

    Attributes:
        score: Anomaly score in [0, 1].
        anomaly_map: (S, S) float32 in [0, 1], on the square the model sees.
        image: (H, W, 3) uint8 RGB, the picture itself, at most 1600 pixels on its longer side.
        image_size: Height and width of the file in pixels.
        threshold: Score above which the picture is called anomalous.
        pixel_threshold: Map value above which a pixel is outlined.
        map_format: File type of the raw map.
        display_range: Range of the heat map's colours.
    """

    score: float
    anomaly_map: np.ndarray
    image: np.ndarray
    image_size: tuple[int, int]
    threshold: float = 0.5
    pixel_threshold: float = 0.5
    map_format: Literal["png", "npy"] = "png"
    display_range: Literal["fixed", "image"] = "fixed"

    @property
    def is_anomalous(self) -> bool:
        """Whether the score exceeds the threshold."""
        return self.score > self.threshold

    def plot(self) -> np.ndarray:
        """Returns (H, W, 3) uint8 RGB: heat map and contour over the picture."""
        return _outlined(self.image, self.anomaly_map, self.pixel_threshold, self.display_range)

    def to_json(self) -> dict[str, Any]:
        """Returns score, label, thresholds and map statistics as plain JSON types."""
        resized = resize_map(self.anomaly_map, (self.image.shape[0], self.image.shape[1]))
        peak_y, peak_x = np.unravel_index(int(resized.argmax()), resized.shape)
        return {
            "score": round(self.score, 6),
            "label": "anomalous" if self.is_anomalous else "normal",
            "threshold": self.threshold,
            "pixel_threshold": self.pixel_threshold,
            "image_size": list(self.image_size),
            "map_max": round(float(self.anomaly_map.max()), 6),
            "map_mean": round(float(self.anomaly_map.mean()), 6),
            "area_above_threshold": round(float((self.anomaly_map > self.pixel_threshold).mean()), 6),
            "peak_xy": [
                round((int(peak_x) + 0.5) / resized.shape[1], 4),
                round((int(peak_y) + 0.5) / resized.shape[0], 4),
            ],
        }

    def save(self, directory: Path, name: str) -> list[Path]:
        """Writes the picture, its overlay and the raw map below ``directory`` and returns their paths.

        The raw map has the size of the saved picture; ``.png`` is 16-bit grey with 65535 for 1.

        Args:
            directory: Existing folder.
            name: Full name of the input file; outputs are ``NAME.overlay.png`` and so on.
        """
        picture, blended = directory / f"{name}.picture.jpg", directory / f"{name}.overlay.png"
        with atomic_path(picture) as temporary:
            Image.fromarray(self.image).save(temporary, format="JPEG", quality=92)
        write_png(blended, self.plot())
        raw = resize_map(self.anomaly_map, (self.image.shape[0], self.image.shape[1]))
        map_path = directory / f"{name}.map.{self.map_format}"
        if self.map_format == "png":
            write_png(map_path, np.round(raw.clip(0.0, 1.0) * 65535).astype(np.uint16))
        else:
            with atomic_path(map_path) as temporary, temporary.open("wb") as file:
                np.save(file, raw)
        return [blended, map_path, picture]


@dataclass(frozen=True)
class CraneVideoResult:
    """One video, scored at regular times.

    Attributes:
        times: (N,) seconds of the scored frames.
        scores: (N,) anomaly scores in [0, 1].
        anomaly_maps: (N, S, S) float16 in [0, 1].
        frames: (N, H, W, 3) uint8 RGB scored frames, at most 960 pixels on the longer side.
        fps: Scored frames per second, the speed of the overlay video.
        threshold: Score above which a frame is called anomalous.
        pixel_threshold: Map value above which a pixel is outlined.
        display_range: Range of the heat map's colours.
    """

    times: np.ndarray
    scores: np.ndarray
    anomaly_maps: np.ndarray
    frames: np.ndarray
    fps: float
    threshold: float = 0.5
    pixel_threshold: float = 0.5
    display_range: Literal["fixed", "image"] = "fixed"

    @property
    def score(self) -> float:
        """Score of the worst frame."""
        return float(self.scores.max())

    def frame_overlay(self, index: int) -> np.ndarray:
        """Returns (H, W, 3) uint8 RGB: heat map and contour over the scored frame ``index``."""
        anomaly_map = self.anomaly_maps[index].astype(np.float32)
        return _outlined(self.frames[index], anomaly_map, self.pixel_threshold, self.display_range)

    def plot(self) -> np.ndarray:
        """Returns the score over time with the threshold, (h, w, 3) uint8 RGB."""
        # Pictures do not need matplotlib.
        from mmattn.viz.curves import plot_curve

        return plot_curve(
            self.times,
            self.scores,
            threshold=self.threshold,
            xlabel="time (s)",
            ylabel="anomaly score",
            title="Anomaly score per frame",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the curve, the worst moment and the label as plain JSON types."""
        worst = int(self.scores.argmax())
        return {
            "score": round(self.score, 6),
            "label": "anomalous" if self.score > self.threshold else "normal",
            "threshold": self.threshold,
            "pixel_threshold": self.pixel_threshold,
            "worst_seconds": round(float(self.times[worst]), 3),
            "frames": len(self.scores),
            "anomalous_frames": int((self.scores > self.threshold).sum()),
            "seconds_of_frames": [round(float(t), 3) for t in self.times],
            "scores": [round(float(s), 6) for s in self.scores],
        }

    def save(self, directory: Path, name: str) -> list[Path]:
        """Writes overlay video, curve, maps and the worst frame below ``directory`` and returns their paths."""
        video, curve = directory / f"{name}.overlay.mp4", directory / f"{name}.curve.png"
        worst, maps = directory / f"{name}.worst.png", directory / f"{name}.maps.npy"
        with VideoWriter(video, self.fps) as writer:
            for index in range(len(self.frames)):
                writer.write(self.frame_overlay(index))
        write_png(curve, self.plot())
        write_png(worst, self.frame_overlay(int(self.scores.argmax())))
        with atomic_path(maps) as temporary, temporary.open("wb") as file:
            np.save(file, self.anomaly_maps)
        return [video, curve, worst, maps]

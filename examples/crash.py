"""A dashcam video watched frame by frame, as a camera would be: python examples/crash.py [FOLDER]."""

import json
import sys
from pathlib import Path

from mmattn.media.image import write_png
from mmattn.media.video import open_video
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.viz.curves import plot_curve

output = Path(sys.argv[1] if len(sys.argv) > 1 else "example_output")
output.mkdir(parents=True, exist_ok=True)

predictor = CrashPredictor.from_pretrained("embedded", device="cpu")
session = predictor.open_session()  # constant memory, however long the stream

steps = []
with open_video("mmattn/assets/crash/samples/rear_end_collision.mp4") as video:
    for frame, time in zip(video.iter_frames(), video.timestamps, strict=True):
        for step in session.feed([frame], [time]):  # ten times a second, at any frame rate
            steps.append(step)
            if step.alert:
                print(f"ALERT at {step.time:.1f} s: risk {step.risk:.2f}. Advisory only.")

times, risks = [step.time for step in steps], [step.risk for step in steps]
curve = plot_curve(times, risks, threshold=predictor.rule.threshold, ylabel="risk", title="rear-end collision")
write_png(output / "risk.png", curve)
(output / "risk.json").write_text(json.dumps([{"time": t, "risk": r} for t, r in zip(times, risks, strict=True)]))
print(f"{len(steps)} steps, highest risk {max(risks):.2f}")

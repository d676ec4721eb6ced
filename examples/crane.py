"""Defects in pictures of things the model was never shown: python examples/crane.py [FOLDER]."""

import sys
from pathlib import Path

from mmattn.vision.crane.predictor import CranePredictor

output = Path(sys.argv[1] if len(sys.argv) > 1 else "example_output")
output.mkdir(parents=True, exist_ok=True)
samples = Path("mmattn/assets/crane/samples")

predictor = CranePredictor.from_pretrained("embedded", device="cpu")
for name in ("grass_flawless.jpg", "leather_cut.jpg", "tile_misprint.jpg"):
    result = predictor.predict(samples / name)
    verdict = "looks damaged" if result.is_anomalous else "looks flawless"
    print(f"{name:<20} {result.score:.2f}  {verdict}, map {result.anomaly_map.shape}")
    result.save(output, name)  # the picture, its heat map over it, the raw map in 16 bits

# A few flawless pictures of the same thing are a far sharper yardstick than a text.
predictor.remember_normals([samples / "tile_flawless.jpg"])
result = predictor.predict(samples / "tile_misprint.jpg")
print(f"tile_misprint.jpg beside a flawless tile: {result.score:.2f}")

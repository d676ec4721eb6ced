"""Speech that begins before its text is complete: python examples/lina.py [FOLDER]."""

import sys
from pathlib import Path

import numpy as np

from mmattn.media.audio import SYNTHETIC_SPEECH, write_audio
from mmattn.media.image import write_png
from mmattn.speech.lina.predictor import LinaPredictor

output = Path(sys.argv[1] if len(sys.argv) > 1 else "example_output")
output.mkdir(parents=True, exist_ok=True)

predictor = LinaPredictor.from_pretrained("embedded", device="cpu")
with predictor.open_session(voice="slt", seed=1) as session:
    pieces = []
    for words in ("The small boat ", "crossed the river. ", "Nobody saw it arrive."):  # as a language model writes
        pieces += session.feed(words)
    pieces += session.flush()
    result = session.result()

print(f"{len(pieces)} pieces, the first after {pieces[0].seconds_since_feed:.2f} s")
samples = np.concatenate([piece.samples for piece in pieces])
write_audio(output / "river.wav", samples, pieces[0].sample_rate, comment=SYNTHETIC_SPEECH)
write_png(output / "river.png", result.plot())  # how it read the phonemes
print(f"{result.seconds:.1f} s of speech, read in order: {all(s.report.monotonic > 0.9 for s in result.sentences)}")

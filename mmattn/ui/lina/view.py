"""What the Lina page says: its texts, the sentences to read aloud, and the lines of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = [
    "CLONE_INTRO",
    "CONSENT",
    "EXAMPLES",
    "HOW_TO_READ",
    "INTRO",
    "LIMITS",
    "NO_FFMPEG",
    "SENTENCES",
    "SYNTHETIC",
    "model_line",
    "numbers_html",
    "recordings_html",
]

INTRO = """# LINA · text made speech
Write something, choose a voice, listen while it is being spoken. A voice can be learned from about a minute of speech,
with its owner's consent."""

SYNTHETIC = """
<div style="border-left:5px solid #2a7f9e;padding:8px 14px;border-radius:6px;background:rgba(42,127,158,.10)">
<b>Synthetic speech.</b> Every file made here says so in its metadata. Do not pass it off as a person's own words, and
clone no voice without its owner's consent.</div>
"""

NO_FFMPEG = """
<div style="border-left:5px solid #b58900;padding:8px 14px;border-radius:6px;background:rgba(181,137,0,.10)">
The program <code>ffmpeg</code> is not installed on this machine, so sound cannot be streamed: a text is played when all
of it has been spoken.</div>
"""

CLONE_INTRO = """Record about a minute: read one sentence, add the recording, go on with the next. A quiet room and an
even distance to the microphone matter more than the microphone. Ready-made recordings will do, with their texts."""

CONSENT = "For example: I, Anna Smith, agree to the use of my voice on this machine, 1 May 2026."
"""What a statement may look like."""

EXAMPLES = (
    "The kettle began to sing, and the cat opened one eye.",
    "Is the last train to the coast still running tonight?",
    "Every morning the baker carried eleven warm loaves across the square. Nobody ever asked him why.",
    "Dr. Reed paid $3.50 for two coffees at 10:45 on May 3rd.",
)
"""Texts a visitor can begin with."""

SENTENCES = (
    "The old ferry leaves the harbour at seven, whatever the weather is doing.",
    "She kept a jar of blue buttons on the shelf beside the window.",
    "Would you rather walk through the valley, or wait here for the bus?",
    "My brother measured the garden twice and still ordered too much gravel.",
    "A thin fog had settled over the fields, and the church bells sounded far away.",
    "They joked about the yellow umbrella until the rain began to pour.",
    "Choose a sharp pencil, draw a large square, and shade each of its corners.",
    "Nothing pleases the children more than a treasure hunt after lunch.",
    "The judge asked for silence, but the crowd outside was growing louder.",
    "Thank you for the next dozen photographs; they brought back a very good year.",
    "How strange that such a small engine could push the boat so quickly!",
    "We ate fresh bread and cheese, then followed the path down to the beach.",
)
"""Sentences to read aloud for a clone: together about a minute, with the sounds of English in many surroundings."""

HOW_TO_READ = """
- **While it is spoken**: the sound starts before the end of the text is known to the model. *First sound* is how long
  that took.
- **Real-time factor**: seconds of work for a second of speech. Below 1 it speaks faster than you can listen.
- **Picture**: above, the sound as a log-mel spectrogram, low pitches at the bottom. Below, the alignment: which part of
  the text (upwards) is read at which moment. A clean staircase is a good sign; a flat stretch is a repeated sound, a
  jump is a skipped word.
- **Seed**: the same text, voice, settings and seed give the same speech.
- **Temperature** and **top-k**: less of both is more regular, more is livelier and slips more often.
"""

LIMITS = """
- The embedded model is small and speaks English. It was trained on *generated* speech; it does not sound like a person
  in a studio, and rare words may come out wrong.
- A cloned voice takes over tone and pace. Voices far from those of its training are met only roughly.
- Recordings, texts, speech and voices stay on the machine that runs this page. They are deleted within a quarter of an
  hour after you leave; what you sent and never used, within a day. Download a voice to keep it.
"""


_READ_AS = {"gruut": "phonemes (gruut)", "espeak": "phonemes (espeak-ng)", "bpe": "pieces of words"}


def model_line(name: str, *, parameters: int, sample_rate: int, tokenizer: str) -> str:
    """Returns the line that says which model is loaded."""
    millions = f"{parameters / 1e6:.1f} million" if parameters >= 1e5 else f"{parameters:,}"
    read_as = _READ_AS.get(tokenizer, tokenizer)
    return f"**{name}**: {millions} parameters, text as {read_as}, sound at {sample_rate / 1000:g} kHz."


def numbers_html(*, seconds: float, rtf: float, first_audio: float | None, seed: int, voice: str, model: str) -> str:
    """Returns the line of numbers under a finished recording.

    Args:
        seconds: Of speech.
        rtf: Seconds of work for a second of speech.
        first_audio: Seconds until the first sound; None where it was not streamed.
        seed: Of the random numbers.
        voice: Who speaks.
        model: What speaks.
    """
    facts = [f"real-time factor {rtf:.2f}"]
    facts += [] if first_audio is None else [f"first sound after {first_audio:.2f} s"]
    facts += [f"seed {seed}", f"voice {escape(voice)}", f"model {escape(model)}"]
    spans = "".join(f"<span>{fact}</span>" for fact in facts)
    return (
        f'<div class="mm-verdict normal"><span class="number">{seconds:.1f} s</span>'
        f'<span class="word">spoken</span>{spans}</div>'
    )


def recordings_html(recordings: Sequence[tuple[str, float]], *, wanted: float = 60.0) -> str:
    """Returns the list of what has been collected for a clone.

    Args:
        recordings: What is said, and for how many seconds.
        wanted: Seconds that make a good clone.
    """
    total = sum(seconds for _, seconds in recordings)
    rows = "".join(f"<li>{escape(text)} <small>({seconds:.1f} s)</small></li>" for text, seconds in recordings)
    share = min(100.0, 100.0 * total / wanted)
    return (
        f'<div class="mm-scale"><span>{total:.0f} s of about {wanted:.0f} s</span>'
        f'<div class="ramp" style="background:linear-gradient(90deg,#14b8a6 {share:.0f}%,rgba(120,130,140,.25) '
        f'{share:.0f}%)"></div></div><ol>{rows}</ol>'
    )

"""What a Lina model is (:class:`LinaConfig`) and what one run of it may choose (:class:`LinaInferOptions`).

Both are plain dataclasses without torch: the first is saved in every checkpoint folder, and the flags of
``mmattn infer lina`` are made from the fields of the second that carry a ``help`` text.

Source: arXiv 2410.23320 and the public code theodorblackbird/lina-speech at commit 7be703a.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmattn.core.config_fields import from_plain
from mmattn.errors import InputError

__all__ = ["SPECIAL_TOKENS", "LinaConfig", "LinaInferOptions"]

Mixer = Literal["gla", "simple_gla", "rwkv6"]
CrossAttentionName = Literal["blind", "plain", "two_stage"]
PositionName = Literal["convolutional", "sinusoidal"]
TokenizerName = Literal["characters", "gruut", "espeak", "bpe"]

SPECIAL_TOKENS = 3
"""Ids before the first codec id: padding 0, start 1, end 2."""

_LONGEST_PAUSE, _LONGEST_SENTENCE = 60.0, 600.0  # seconds

_POSITIVE = ("dim", "num_codebooks", "codebook_size", "text_vocab", "text_layers", "text_heads", "num_layers",
             "num_heads", "cross_heads")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LinaConfig:
    """Architecture of one model.

    Attributes:
        dim: Width d of embeddings and blocks.
        num_codebooks: Codebooks Q of a frame; 1 for WavTokenizer.
        codebook_size: Codec ids of each, without the special ones.
        text_vocab: Text ids; 0 is padding, 1 start, 2 end.
        text_layers: Blocks of the text encoder.
        text_heads: Heads of these.
        text_dropout: Dropout after each of these blocks, in training.
        mixer: What mixes over time in the decoder's blocks: gated linear attention, the simple one with one gate per
            head, or RWKV6.
        num_layers: Blocks L before the cross-attention, and as many after it.
        num_heads: Heads of the mixers.
        expand_k: Width of all heads' keys together, as a multiple of ``dim``.
        expand_v: The same of the values.
        short_conv: A causal convolution of four steps on queries, keys and values; not with "rwkv6".
        gate_normalizer: The log-gates are divided by this; not with "rwkv6".
        dropout: Dropout after each block of the decoder, in training.
        cross_attention: "blind" chooses what is read by position only (one head); "plain" is softmax attention of
            several heads; "two_stage" attends by content, mixes, then attends by position.
        cross_heads: Heads of "plain" and "two_stage".
        cross_dropout: Dropout of the weights of the cross-attention, in training.
        cross_rotary: Rotary positions on the queries and keys of "blind" and "plain".
        position: Table and convolution, or sines, of the text positions of "blind".
        position_dim: Width of these; None is ``dim``.
        positions_over_padding: Let the convolution of "convolutional" run over the padding of a batch, as the published
            code does. A text's last 15 positions then depend on what it is batched with.
        tie_embeddings: The logits use the transposed audio embeddings.
        text_mask_probability: How often in training a whole text is replaced by a mask token; above 0 the embedding has
            a row for it, and classifier-free guidance is possible.
        tokenizer: How text becomes numbers: "characters"; "gruut" or "espeak" for phonemes; "bpe" for a file of the
            tokenizers library, as published.
        tokenizer_options: Settings of that by name, plain JSON values.
        codec: Name of the codec whose tokens the model was trained on.
        codec_options: Settings of that codec by name, plain JSON values.
        speaking: Sampling and length of sentences that suit the model, by the names of
            :data:`.generation.speaker.PUBLISHED`; what a run says goes first.
        default_voice: Which of the voices that lie beside the model speaks when none is asked for; None takes the
            first by name.
    """

    dim: int = 1024
    num_codebooks: int = 1
    codebook_size: int = 4096
    text_vocab: int = 256

    text_layers: int = 6
    text_heads: int = 4
    text_dropout: float = 0.1

    mixer: Mixer = "gla"
    num_layers: int = 6
    num_heads: int = 4
    expand_k: float = 0.5
    expand_v: float = 1.0
    short_conv: bool = True
    gate_normalizer: float = 16.0
    dropout: float = 0.0

    cross_attention: CrossAttentionName = "blind"
    cross_heads: int = 4
    cross_dropout: float = 0.0
    cross_rotary: bool = False
    position: PositionName = "convolutional"
    position_dim: int | None = None
    positions_over_padding: bool = False

    tie_embeddings: bool = False
    text_mask_probability: float = 0.0

    tokenizer: TokenizerName = "bpe"
    tokenizer_options: dict[str, Any] = field(default_factory=dict)
    codec: str = "wavtokenizer"
    codec_options: dict[str, Any] = field(default_factory=dict)
    speaking: dict[str, Any] = field(default_factory=dict)
    default_voice: str | None = None

    @property
    def audio_vocab(self) -> int:
        """Audio ids of each codebook, the special ones included."""
        return self.codebook_size + SPECIAL_TOKENS

    @property
    def blind_dim(self) -> int:
        """Width of the positions and of the network over them."""
        return self.dim if self.position_dim is None else self.position_dim

    def __post_init__(self) -> None:
        """Checks what does not depend on data.

        Raises:
            ValueError: If a field is out of range or two contradict each other; the message names them.
        """
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1.")
        for name in ("dropout", "text_dropout", "cross_dropout", "text_mask_probability"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1).")
        for name, choices in (
            ("mixer", ("gla", "simple_gla", "rwkv6")),
            ("cross_attention", ("blind", "plain", "two_stage")),
            ("position", ("convolutional", "sinusoidal")),
            ("tokenizer", ("characters", "gruut", "espeak", "bpe")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}.")
        self._check_heads()

    def _check_heads(self) -> None:
        widths = {self.dim, self.blind_dim} if self.cross_attention == "blind" else {self.dim}
        for width in sorted(widths):
            for name in ("expand_k", "expand_v"):
                total = int(width * getattr(self, name))
                if total < 1 or total % self.num_heads:
                    raise ValueError(
                        f"{name} {getattr(self, name)} makes a width of {total} from {width}, "
                        f"which cannot be divided among num_heads {self.num_heads}."
                    )
        if self.dim % (4 * self.text_heads):
            # Half of each head is rotated, in pairs.
            raise ValueError(f"dim is {self.dim}, expected a multiple of 4 * text_heads = {4 * self.text_heads}.")
        if self.cross_attention != "blind" and self.dim % (4 * self.cross_heads):
            raise ValueError(f"dim is {self.dim}, expected a multiple of 4 * cross_heads = {4 * self.cross_heads}.")
        if self.blind_dim % 2:
            raise ValueError(f"position_dim is {self.blind_dim}, expected an even number.")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LinaConfig:
        """Builds the config from :meth:`to_dict`'s result or from parsed JSON.

        Raises:
            ValueError: If a key is not a field of this class, or a value is out of range; the message names them.

        >>> LinaConfig.from_dict({"dim": 64, "codebook_size": 128}).audio_vocab
        131
        """
        return from_plain(cls, data, what="Lina's config")


@dataclass(frozen=True, kw_only=True)
class LinaInferOptions:
    """Choices of one ``mmattn infer lina`` run; none of them changes the model.

    Attributes:
        voice: Name of a voice that ships with the model, or a voice file, whose states speaking starts from.
        prompt: Recording that is continued in its voice, audio.
        prompt_text: What is said in it.
        codec: File or folder of the codec, for a checkpoint that does not hold its own.
        temperature: Divides the logits; 0 takes the likeliest token. None leaves it and the next six to the model.
        top_k: Tokens that may be drawn, the likeliest; 0 allows all.
        top_p: Smallest set of tokens with this probability together; 1 allows all.
        min_p: Least probability of a token, as a part of the likeliest one's; 0 allows all.
        repetition_penalty: Divides the odds of tokens heard lately; 1 is none.
        sampled_codebooks: Codebooks that are drawn, the first ones; the others take the likeliest token.
        guidance: Weight w of ``l_u + w (l_c - l_u)`` with the logits without and with text; 1 is none.
        max_seconds: Length at which a sentence is cut.
        candidates: Utterances made of every sentence; the best aligned one is kept.
        retries: How often a sentence that failed is spoken again with other random numbers; the best one is kept.
        seconds_per_token: Expected length of a text token; None goes by the tokenizer.
        duration_ratio: A sentence this many times longer or shorter than expected has failed.
        max_characters: Longer sentences are cut at commas or between words; None leaves it to the model, or is 200.
        carry: What a sentence starts from: "voice" is the voice as it was at first, "state" goes on from the sentence
            before, in which a long text may drift.
        sentence_pause: Silence between sentences, seconds.
        paragraph_pause: The same between paragraphs.
        part_pause: The same between the parts of a sentence that was too long, after semicolons and at line breaks.
        even_loudness: Keep the loudness of a sentence near that of those before it.
        precision: Of the weights that a step reads; the lighter ones make a large model faster and change the speech.
        sentences_at_once: Sentences that are generated together; with 1 results do not depend on rounding in batches.
        format: Of the sound files.
        text: What to say in the place of INPUT.
        whole: Read every file as one text, into one recording.
        clone: Recordings of a speaker, each with what is said in it, to learn a voice from.
        speaker: Whose recordings are taken where those of several speakers are found.
        save_voice: Where that voice goes.
        consent: The speaker's statement that the voice may be used, word for word.
    """

    voice: str | None = field(default=None, metadata={"help": "shipped voice by name, or voice file, to speak with"})
    prompt: str | None = field(default=None, metadata={"help": "recording whose voice is continued"})
    prompt_text: str | None = field(default=None, metadata={"help": "what is said in the recording of --prompt"})
    codec: str | None = field(default=None, metadata={"help": "codec, where the checkpoint does not hold it"})
    temperature: float | None = field(default=None, metadata={"help": "randomness of the speech; 0 is none"})
    top_k: int | None = field(
        default=None, metadata={"help": "how many of the likeliest tokens may be drawn; 0 allows all"}
    )
    top_p: float | None = field(
        default=None, metadata={"help": "draw from the likeliest tokens of this total probability"}
    )
    min_p: float | None = field(default=None, metadata={"help": "drop tokens this much less likely than the likeliest"})
    repetition_penalty: float | None = field(default=None, metadata={"help": "above 1 avoids tokens heard just before"})
    sampled_codebooks: int | None = field(
        default=None, metadata={"help": "codebooks that are drawn; others take the likeliest"}
    )
    guidance: float | None = field(
        default=None, metadata={"help": "above 1 follows the text more closely, if trained for it"}
    )
    max_seconds: float = field(default=30.0, metadata={"help": "cut sentences at this length, seconds"})
    candidates: int = field(default=1, metadata={"help": "utterances to make of each sentence; the best one is kept"})
    retries: int = field(default=2, metadata={"help": "how often a sentence that failed is tried again"})
    seconds_per_token: float | None = field(
        default=None, metadata={"help": "expected seconds per character or phoneme; by default as usual in English"}
    )
    duration_ratio: float = field(
        default=2.5, metadata={"help": "a sentence this many times longer or shorter than expected has failed"}
    )
    max_characters: int | None = field(
        default=None,
        metadata={"help": "cut longer sentences at commas or between words; by default as suits the model, or 200"},
    )
    carry: Literal["voice", "state"] = field(
        default="voice", metadata={"help": "start each sentence from the voice, or go on from the one before"}
    )
    sentence_pause: float = field(default=0.25, metadata={"help": "silence between sentences, seconds"})
    paragraph_pause: float = field(default=0.6, metadata={"help": "silence between paragraphs, seconds"})
    part_pause: float = field(default=0.08, metadata={"help": "silence between parts of a sentence, seconds"})
    even_loudness: bool = field(default=True, metadata={"help": "keep the loudness even from sentence to sentence"})
    precision: Literal["float32", "bfloat16", "int8"] = field(
        default="float32", metadata={"help": "weights of a step; the lighter ones make a large model faster"}
    )
    sentences_at_once: int = field(default=8, metadata={"help": "sentences to generate together"})
    format: Literal["wav", "flac"] = field(default="wav", metadata={"help": "sound files to write"})
    text: str | None = field(default=None, metadata={"help": "say this instead of INPUT"})
    whole: bool = field(default=False, metadata={"help": "read every file as one long text, not line by line"})
    clone: str | None = field(default=None, metadata={"help": "folder of recordings (x.wav beside x.txt) to clone"})
    speaker: str | None = field(default=None, metadata={"help": "which speaker to clone, if there are several"})
    save_voice: str | None = field(default=None, metadata={"help": "voice file to write, .safetensors; with --clone"})
    consent: str | None = field(
        default=None, metadata={"help": "the cloned speaker's statement of consent, word for word"}
    )

    @property
    def optional(self) -> frozenset[str]:
        """Arguments of ``mmattn infer`` that this run can do without."""
        if self.text is not None:
            return frozenset({"INPUT"})
        return frozenset() if self.clone is None else frozenset({"INPUT", "--output"})

    def __post_init__(self) -> None:
        """Checks what does not depend on the model.

        Raises:
            InputError: If a field is out of range or half of a prompt is missing; the message names it.
        """
        for name in ("sentence_pause", "paragraph_pause", "part_pause"):
            if not 0 <= getattr(self, name) <= _LONGEST_PAUSE:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 to {_LONGEST_PAUSE:g} seconds.")
        if not 0 < self.max_seconds <= _LONGEST_SENTENCE:
            raise InputError(
                f"max_seconds is {self.max_seconds}, expected more than 0 and at most {_LONGEST_SENTENCE:g}."
            )
        for name, least in (
            ("candidates", 1), ("sentences_at_once", 1), ("retries", 0), ("max_characters", 20), ("guidance", 0),
        ):  # fmt: skip
            if getattr(self, name) is not None and not getattr(self, name) >= least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}.")
        for name, above in (("duration_ratio", 1.0), ("seconds_per_token", 0.0)):
            value = getattr(self, name)
            if value is not None and not value > above:
                raise InputError(f"{name} is {value}, expected more than {above:g}.")
        if (self.prompt is None) != (self.prompt_text is None):
            given, missing = ("prompt", "prompt_text") if self.prompt is not None else ("prompt_text", "prompt")
            raise InputError(f"{given} is given without {missing}; the recording and what is said in it go together.")
        for name, choices in (
            ("carry", ("voice", "state")),
            ("format", ("wav", "flac")),
            ("precision", ("float32", "bfloat16", "int8")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}.")

"""Which tensor of the published code is which of ours; the tensors themselves are the same.

Names that begin alike and differ in what follows are one rule: the longest prefix wins, then parts of the rest are
renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["strip_wrappers", "to_ours", "to_published"]

_PREFIXES = {
    "text_embedding.": "txt_embed.",
    "text_encoder.blocks.": "txt_encoder.sa.",
    "audio_embedding": "rvq_embed.weight",
    "head": "logits_head.weight",
    "decoder.lower.": "attentive_rnn.encoder.",
    "decoder.upper.": "attentive_rnn.decoder.",
    "decoder.cross.projections.": "attentive_rnn.cross_att.",
    "decoder.cross.rotary.": "attentive_rnn.cross_att.rotary.",
    "decoder.cross.positions.embed.": "attentive_rnn.cross_att.pos_embed.embed.",
    "decoder.cross.positions.convolution.": "attentive_rnn.cross_att.pos_embed.dw_conv.",
    "decoder.cross.network.": "attentive_rnn.cross_att.pos_net.",
}
_PARTS = {".mixer.layer.": ".tmix.", ".mixer.": ".tmix.", ".feed_forward.": ".cmix."}


def to_published(name: str) -> str:
    """Returns the published name of one of our tensors.

    Raises:
        KeyError: If the published code has none such.

    >>> to_published("decoder.lower.0.mixer.layer.q_proj.weight")
    'attentive_rnn.encoder.0.tmix.q_proj.weight'
    """
    fitting = [prefix for prefix in _PREFIXES if name.startswith(prefix)]
    if not fitting:
        raise KeyError(name)
    prefix = max(fitting, key=len)
    published = _PREFIXES[prefix] + name.removeprefix(prefix)
    for ours, theirs in _PARTS.items():
        published = published.replace(ours, theirs)
    return published


def to_ours(names: Iterable[str]) -> dict[str, str]:
    """Returns published names by ours, for the names that our model has.

    >>> to_ours(["head"])
    {'logits_head.weight': 'head'}
    """
    return {to_published(name): name for name in names}


def strip_wrappers(name: str) -> str:
    """Returns a name without what trainers put before it.

    >>> strip_wrappers("model._orig_mod.txt_embed.weight")
    'txt_embed.weight'
    """
    return re.sub(r"^(?:module\.|model\.|_orig_mod\.)+", "", name)

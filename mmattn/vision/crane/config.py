"""What a Crane model is (:class:`CraneConfig`) and what one run of it may choose (:class:`CraneInferOptions`).

Both are plain dataclasses without torch: the first is saved in every checkpoint folder, and the flags of
``mmattn infer crane`` are made from the fields of both that carry a ``help`` text.

Source: arXiv 2504.11055 and the public code AlirezaSalehy/Crane at commit 39181f9. Where the code differs from the
idea, the default reproduces the code, because every published number was made with it; each such field says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmattn.core.config_fields import from_plain

__all__ = ["RECIPES", "ClipArchitecture", "CraneConfig", "CraneInferOptions"]

AttentionType = Literal["vv", "kk", "qq", "qq+kk", "qq+kk+vv", "(q+k+v)^2", "none"]
ContextType = Literal["none", "pad_suffix", "pad_prefix", "replace_prefix", "replace_suffix"]
FoundationName = Literal["none", "dinov2", "dino", "trunk"]


@dataclass(frozen=True, kw_only=True)
class ClipArchitecture:
    """Sizes of an open_clip ``CLIP`` that has no name in open_clip's own list.

    Attributes:
        embed_dim: Width E of the shared image-text space.
        image_size: Native resolution of the positional table, in pixels.
        patch_size: Pixels per patch side.
        vision_width: Width of the vision tower.
        vision_layers: Number of vision blocks.
        vision_heads: Heads of each vision block.
        text_width: Width of the text tower.
        text_layers: Number of text blocks.
        text_heads: Heads of each text block.
        context_length: Tokens of a text, padding included.
        vocab_size: Rows of the token table.
        quick_gelu: Use ``x * sigmoid(1.702 x)`` as OpenAI's models do.
    """

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    context_length: int = 77
    vocab_size: int = 49408
    quick_gelu: bool = True

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: If one is not positive, or a width cannot be divided among its heads.
        """
        for name, size in vars(self).items():
            if name != "quick_gelu" and size < 1:
                raise ValueError(f"{name} is {size}, expected at least 1.")
        for tower in ("vision", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise ValueError(f"{tower}_width {width} cannot be divided among {tower}_heads {heads}.")


@dataclass(frozen=True, kw_only=True)
class CraneConfig:
    """Architecture and scoring rule of one Crane model.

    Attributes:
        clip_model: open_clip's name of the CLIP; ignored when ``clip_architecture`` is given.
        clip_pretrained: open_clip tag or path of the CLIP weights; None when the checkpoint holds them itself.
        clip_architecture: Sizes of a CLIP that open_clip does not know by name.
        trunk: Frozen convolutional network that stands in for the patch convolution (the embedded model).
        token_ids: Sorted CLIP BPE ids that the text tower knows; its table has one row each. None keeps all 49408.
        image_size: Side of the square the pictures are resized to, in pixels; a multiple of the patch size.
        attn_type: Which self-correlation maps E-Attn sums; "vv" gives AnomalyCLIP's DPAM, "none" reads CLIP's own
            patch tokens, the plain path that E-Attn is compared with.
        dual_layers: How many of the last vision blocks carry the E-Attn path.
        feature_layers: 1-based blocks whose patch features are used; none before the first dual block.
        multilayer: "aliased" counts the last block's features once per entry of ``feature_layers``, as the published
            code does because its list holds views; "distinct" reads each block.
        foundation: Model whose patch similarities steer D-Attn; "none" is Crane, anything else Crane+.
        foundation_pretrained: Path of the foundation weights; None takes the hub's.
        both_eattn_dattn: Use D-Attn and E-Attn features together; False uses D-Attn alone.
        beta: D-Attn subtracts beta times the mean similarity.
        gamma: D-Attn multiplies what is left by gamma.
        dattn_mean: Mean over each "image", or over the whole "batch" as the published code does, which makes a score
            depend on the pictures it is batched with.
        dattn_input: Stream that feeds D-Attn's values: after the attention of the block ("post_attn", what the
            published code computes through in-place sums) or entering it ("pre_attn").
        n_ctx: Learned context vectors of each of the two prompts.
        depth: Text blocks that see learned tokens, the first included.
        t_n_ctx: Learned tokens put before each of the ``depth - 1`` deeper blocks.
        deep_prompt_fp16: Round the deep prompts to float16 as the published code does.
        normal_text: Words after the context of the normal prompt.
        abnormal_text: Words after the context of the abnormal prompt.
        context_type: Where the image feature enters the prompts when they are image-conditioned.
        context_prob: Probability that a training step conditions its prompts on the image.
        inference_context: Condition the prompts at inference; the published numbers do not.
        fusion: Mix a score-weighted mean of the patches into the image feature.
        alpha: Share of that mean.
        fusion_threshold: Use only patches whose abnormal probability is above this; None uses all.
        fusion_top_k: Use only the most abnormal patches, this many; None uses all.
        soft_mean: Average probabilities over layers instead of logits.
        sigma: Standard deviation of the Gaussian on the map, in pixels of the resized picture; 0 turns it off.
        tau_pixel: Temperature of the patch logits.
        tau_image: Temperature of the image logits at inference.
        tau_image_train: Temperature of the image logits in training.
        image_score: "text" is the published rule (fused feature against the two texts); "max" takes the largest
            value of the smoothed map; "mean" averages the two.
    """

    clip_model: str = "ViT-L-14-336-quickgelu"
    clip_pretrained: str | None = field(
        default="openai", metadata={"help": "path of the CLIP weights, for checkpoints that hold prompts only"}
    )
    clip_architecture: ClipArchitecture | None = None
    trunk: Literal["none", "efficientnet_lite0"] = "none"
    token_ids: tuple[int, ...] | None = None
    image_size: int = 518

    attn_type: AttentionType = "qq+kk+vv"
    dual_layers: int = 19
    feature_layers: tuple[int, ...] = (6, 12, 18, 24)
    multilayer: Literal["aliased", "distinct"] = "aliased"

    foundation: FoundationName = "none"
    foundation_pretrained: str | None = field(
        default=None, metadata={"help": "path of the DINOv2 or DINO weights of Crane+"}
    )
    both_eattn_dattn: bool = True
    beta: float = 1.2
    gamma: float = 3.0
    dattn_mean: Literal["image", "batch"] = "image"
    dattn_input: Literal["post_attn", "pre_attn"] = "post_attn"

    n_ctx: int = 12
    depth: int = 9
    t_n_ctx: int = 4
    deep_prompt_fp16: bool = False
    normal_text: str = "object."
    abnormal_text: str = "damaged object."
    context_type: ContextType = "pad_suffix"
    context_prob: float = 1.0
    inference_context: bool = field(
        default=False, metadata={"help": "condition the prompts on each picture (the published numbers do not)"}
    )

    fusion: bool = True
    alpha: float = 0.5
    fusion_threshold: float | None = None
    fusion_top_k: int | None = None
    soft_mean: bool = field(default=True, metadata={"help": "average probabilities over layers instead of logits"})
    sigma: float = field(
        default=4.0, metadata={"help": "Gaussian smoothing of the map, in pixels of the model's input"}
    )
    tau_pixel: float = 0.07
    tau_image: float = 0.07
    tau_image_train: float = 0.01
    image_score: Literal["text", "max", "mean"] = field(
        default="text", metadata={"help": "rule of the picture's score: fused text score, map maximum, or their mean"}
    )

    def __post_init__(self) -> None:
        """Checks what does not depend on the CLIP.

        Raises:
            ValueError: If a field is out of range; the message names it.
        """
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}, expected at least 1 pixel.")
        if self.sigma < 0:
            raise ValueError(f"sigma is {self.sigma}, expected 0 or more pixels; 0 turns smoothing off.")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CraneConfig:
        """Builds the config from :meth:`to_dict`'s result or from parsed JSON.

        Raises:
            ValueError: If a key is not a field of this class or a value is of another type; the message names it.
        """
        return from_plain(cls, data, what="Crane's config")


@dataclass(frozen=True, kw_only=True)
class CraneInferOptions:
    """Choices of one ``mmattn infer crane`` run; none of them changes the model.

    Attributes:
        recipe: Name of a recipe of :data:`RECIPES`, or None for what the checkpoint says.
        threshold: Score above which a picture counts as anomalous, in [0, 1].
        pixel_threshold: Map value above which a pixel is outlined, in [0, 1].
        map_format: File type of the raw map.
        display_range: Range of the heat map's colours: fixed [0, 1], or each picture's own minimum and maximum,
            which paints something red even on a flawless picture.
        normal_images: Folder of pictures without defects; turns the few-shot memory on.
        mutual: Score the pictures of the run against each other.
        memory_weight: Share of the few-shot or mutual map in the final map, in [0, 1].
        video_fps: Frames per second that are scored in a video.
    """

    recipe: str | None = field(default=None, metadata={"help": "named recipe, see RECIPES; default: the checkpoint's"})
    threshold: float = field(default=0.5, metadata={"help": "score above which a picture is called anomalous, 0 to 1"})
    pixel_threshold: float = field(default=0.5, metadata={"help": "map value above which a pixel is outlined, 0 to 1"})
    map_format: Literal["png", "npy"] = field(
        default="png", metadata={"help": "raw map as 16-bit PNG (0..65535 = 0..1) or float32 .npy"}
    )
    display_range: Literal["fixed", "image"] = field(
        default="fixed", metadata={"help": "colours over [0, 1], or over each picture's own range"}
    )
    normal_images: str | None = field(
        default=None, metadata={"help": "folder of flawless pictures of the same product (few-shot mode)"}
    )
    mutual: bool = field(
        default=False, metadata={"help": "score the pictures of this run against each other (no normals named)"}
    )
    memory_weight: float = field(
        default=0.7, metadata={"help": "share of the few-shot or mutual map in the final map, 0 to 1"}
    )
    video_fps: float = field(default=2.0, metadata={"help": "frames per second that are scored in a video"})


RECIPES: dict[str, dict[str, Any]] = {
    "crane": {"foundation": "none", "feature_layers": (6, 12, 18, 24), "soft_mean": True},
    "crane_plus": {"foundation": "dinov2", "feature_layers": (24,), "soft_mean": False},
    "crane_plus_soft": {"foundation": "dinov2", "feature_layers": (24,), "soft_mean": True},
}
"""Published settings by name: Crane on all sets; Crane+ on the industrial sets; Crane+ on DAGM and the medical sets."""

"""What a CRASH model is (:class:`CrashConfig`) and what one run of it may choose (:class:`CrashInferOptions`).

Both are plain dataclasses without torch: the first is saved in every checkpoint folder, and the flags of
``mmattn infer crash`` are made from the fields of both that carry a ``help`` text.

Source: arXiv 2407.17757 and the public code Petrichor625/CRASH at commit dbda454. The defaults reproduce the code,
oddities included, because published numbers were made with it; :data:`TRAINING_SETTINGS` has those of a new training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmattn.core.config_fields import from_plain

__all__ = ["TRAINING_SETTINGS", "CrashConfig", "CrashInferOptions", "CrashLossOptions"]

Architecture = Literal["crash", "dsta", "gru"]
PerceptionName = Literal["none", "released", "timm", "open_clip", "embedded"]
TfaOutput = Literal["softmax", "identity", "layernorm", "residual"]


@dataclass(frozen=True, kw_only=True)
class CrashConfig:
    """Architecture of one risk model.

    Attributes:
        architecture: "crash", or one of the baselines "dsta" (arXiv 2106.10197) and "gru".
        feature_dim: Width F of a slot's features: 4096 for VGG-16, 2048 for ResNet-101.
        num_boxes: Box slots N of a frame; the frame itself is one more.
        hidden_dim: Width D of embeddings and hidden states.
        grid: Sides (a, b) of the plane the frame embedding is folded to for the 2-D FFT; a * b = D, b even.
        num_layers: GRU layers L.
        classifier_dim: Width of the hidden layer of the frame head and of the auxiliary head.
        window: Hidden states that the temporal attention sees, the newest included; at least 3.
        tfa_layers: Attention layers of each of the L stacks of the temporal focus attention (TFA).
        tfa_heads: Heads of these.
        tfa_output: What becomes of the aggregated states: "softmax" makes each a probability vector (the published
            code); "identity" passes them on; "layernorm" normalises them; "residual" adds half of that to the state.
        channel_attention: "upstream" is the constant 0.5 that the published code computes, because its bottleneck has
            6 // 16 = 0 units; "bottleneck" has at least one.
        channel_reduction: The 6 channels (three real, three imaginary) are squeezed to 6 // reduction units, at
            least 1. Used by "bottleneck" only.
        spectral_init: Start of the spectral weights: "noise" 0.02 randn (the published code), or "identity" 1 plus
            that noise.
        aggregation_heads: Heads of the auxiliary branch's self-attention.
        use_oam: Object attention; without it the boxes are averaged.
        use_cam: The context (FFT) branch; without it the GRU sees boxes and frame only.
        use_tfa: The temporal focus attention; without it the GRU is a plain one.
        use_aux: The auxiliary video-level head.
        mask_empty_boxes: Slots that hold nothing take no part in the object attention. The published code lets them
            in, as relu(bias); its DSTA sets their weights to zero after the softmax.
        temporal_window: States that DSTA's temporal attention sees: 5 for CCD, 10 for DAD.
        dropout: Probability that a unit of the heads' input is dropped in training.
        legacy_eval_dropout: Keep the frame head's dropout on at evaluation, as the published code does by mistake;
            scores are then random.
        mc_samples: Passes of the frame head that are averaged while ``legacy_eval_dropout`` is on; with two or more,
            the standard deviation of their probabilities is given as uncertainty.
        fps: Frames per second the model was trained at: 20 for DAD and A3D, 10 for CCD.
        num_frames: Frames of a training clip; DSTA has one weight for each in its auxiliary branch.
        session_steps: Steps after which a state of a session is given up (:mod:`.stream.windows`), at least 2; None is
            ``num_frames``. Shorter where a model answers best before the end of its clips.
        perception: Where the features come from. "none": from files that cannot be made again from a video, as DAD's.
            "released": a torchvision detector and VGG-16 or ResNet-101 as for CCD. "timm", "open_clip": crops through
            a backbone of that library. "embedded": the detector and features of the embedded model.
        perception_options: Settings of that perception by name, plain JSON values.
    """

    architecture: Architecture = "crash"
    feature_dim: int = 4096
    num_boxes: int = 19
    hidden_dim: int = 512
    grid: tuple[int, int] = (32, 16)
    num_layers: int = 2
    classifier_dim: int = 64

    window: int = 10
    tfa_layers: int = 3
    tfa_heads: int = 8
    tfa_output: TfaOutput = "softmax"
    channel_attention: Literal["upstream", "bottleneck"] = "upstream"
    channel_reduction: int = 2
    spectral_init: Literal["noise", "identity"] = "noise"
    aggregation_heads: int = 4
    use_oam: bool = True
    use_cam: bool = True
    use_tfa: bool = True
    use_aux: bool = True
    mask_empty_boxes: bool = False
    temporal_window: int = 5

    dropout: float = 0.5
    legacy_eval_dropout: bool = field(
        default=False, metadata={"help": "keep dropout on while scoring, as the published code does"}
    )
    mc_samples: int = field(
        default=1, metadata={"help": "random passes that are averaged under --legacy-eval-dropout; 2 or more give std"}
    )

    fps: float = 10.0
    num_frames: int = 50
    session_steps: int | None = None
    perception: PerceptionName = "released"
    perception_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what does not depend on data.

        Raises:
            ValueError: If two fields contradict each other; the message names them.
        """
        for name in ("feature_dim", "num_boxes", "hidden_dim", "num_layers", "classifier_dim", "tfa_layers",
                     "channel_reduction", "temporal_window", "mc_samples", "num_frames"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1.")
        if self.window < 3:
            raise ValueError(f"window is {self.window}, expected at least 3: the temporal attention starts there.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, expected a number in [0, 1).")
        if not self.fps > 0.0:
            raise ValueError(f"fps is {self.fps}, expected a positive number.")
        if self.session_steps is not None and self.session_steps < 2:
            raise ValueError(f"session_steps is {self.session_steps}, expected at least 2, or null for num_frames.")
        if self.architecture == "crash":
            self._check_crash()
        if self.use_aux and self.architecture != "dsta" and self.hidden_dim % self.aggregation_heads:
            raise ValueError(
                f"hidden_dim {self.hidden_dim} cannot be divided among aggregation_heads {self.aggregation_heads}."
            )

    def _check_crash(self) -> None:
        if self.use_cam and self.grid[0] * self.grid[1] != self.hidden_dim:
            raise ValueError(f"grid {self.grid} holds {self.grid[0] * self.grid[1]}, not hidden_dim {self.hidden_dim}.")
        if self.use_cam and self.grid[1] % 2:
            raise ValueError(f"grid is {self.grid}, expected an even second side: the inverse FFT needs it.")
        if self.use_tfa and self.hidden_dim % self.tfa_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} cannot be divided among tfa_heads {self.tfa_heads}.")

    @property
    def warm_up(self) -> int:
        """First steps of a session whose risk is a transient: until the temporal attention has all it looks back on."""
        return {"crash": self.window, "dsta": self.temporal_window, "gru": 1}[self.architecture]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrashConfig:
        """Builds the config from :meth:`to_dict`'s result or from parsed JSON.

        Raises:
            ValueError: If a key is not a field of this class, or two fields contradict each other; the message names
                them.

        >>> CrashConfig.from_dict({"grid": [8, 8], "hidden_dim": 64}).grid
        (8, 8)
        """
        return from_plain(cls, data, what="CRASH's config")


TRAINING_SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "from_scratch": {
        "tfa_output": "residual",
        "channel_attention": "bottleneck",
        "spectral_init": "identity",
        "mask_empty_boxes": True,
    },
}
"""Named settings: the published code, and what to start a new training from."""


@dataclass(frozen=True, kw_only=True)
class CrashLossOptions:
    """The objective; see :mod:`mmattn.video.crash.losses`.

    Attributes:
        decay: Rate d of the weight exp(-d * seconds to the accident) of an accident's earlier frames: 0.5 (CRASH) or
            1.0 (UString, DSTA).
        weighting: "per_sample" weights each clip by its own time; "upstream_batch_mean" is what the published code
            computes: every clip is weighted by the mean over the batch.
        frame_weight: u1, of the frame loss.
        aux_weight: u2, of the auxiliary loss.
        learn_rho: Divide both losses by the squares of the learned rho_1 and rho_2; False keeps these out.
        after_accident: Whether an accident's frames after it count, with weight 1 as in the published code.
    """

    decay: float = 0.5
    weighting: Literal["per_sample", "upstream_batch_mean"] = "per_sample"
    frame_weight: float = 1.0
    aux_weight: float = 15.0
    learn_rho: bool = True
    after_accident: bool = True


@dataclass(frozen=True, kw_only=True)
class CrashInferOptions:
    """Choices of one ``mmattn infer crash`` run; none of them changes the model.

    Attributes:
        alert_threshold: Risk, a probability in [0, 1], from which a frame counts towards an alert.
        persistence: Consecutive frames at or above the threshold that raise an alert.
        cooldown: Seconds after an alert in which no other is raised.
        boxes: File or folder with the boxes of another detector, used in the place of the perception's own.
        overlay: Write the video with boxes, gauge and curve drawn on it.
    """

    alert_threshold: float = field(default=0.6, metadata={"help": "risk that counts towards an alert, 0 to 1"})
    persistence: int = field(default=3, metadata={"help": "frames in a row above the threshold that raise an alert"})
    cooldown: float = field(default=2.0, metadata={"help": "seconds after an alert without another one"})
    boxes: str | None = field(
        default=None, metadata={"help": "file or folder of boxes from another detector (CSV, JSON or npz)"}
    )
    overlay: bool = field(default=True, metadata={"help": "write the video with boxes, gauge and curve drawn on it"})

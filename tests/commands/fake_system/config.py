from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    depth: int = 9
    sigma: float = field(default=4.0, metadata={"help": "smoothing"})
    soft: bool = field(default=True, metadata={"help": "average softly"})


@dataclass(frozen=True, kw_only=True)
class FakeInferOptions:
    recipe: str | None = field(default=None, metadata={"help": "named recipe"})
    threshold: float = field(default=0.5, metadata={"help": "score, 100% is 1"})
    kind: Literal["png", "npy"] = field(default="png", metadata={"help": "file type"})
    count: int | None = field(default=None, metadata={"help": "how many"})
    mutual: bool = field(default=False, metadata={"help": "against each other"})


RECIPES = {"plain": {}, "plus": {}}

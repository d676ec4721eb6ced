from dataclasses import dataclass
from typing import Any


@dataclass
class FakePredictor:
    source: str
    device: str
    options: Any

    @classmethod
    def from_pretrained(cls, source: str, *, device: str, options: Any) -> "FakePredictor":
        return cls(source, device, options)

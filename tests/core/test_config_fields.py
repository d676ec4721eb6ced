from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from mmattn.core.config_fields import check_types


@dataclass
class Config:
    count: int = 1
    rate: float = 1.0
    is_on: bool = False
    name: str | None = None
    kind: Literal["a", "b"] = "a"
    steps: tuple[int, ...] = (1, 2)
    grid: tuple[int, int] = (1, 2)
    options: dict[str, Any] = field(default_factory=dict)


def test_what_json_gives_for_a_config_passes() -> None:
    check_types(
        Config,
        {"count": 3, "rate": 2, "is_on": True, "name": None, "kind": "b", "steps": [1, 2], "grid": [3, 4],
         "options": {"x": 1}, "no_field": object()},
    )  # fmt: skip
    check_types(Config, {"name": "n", "rate": 0.5, "steps": []})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "four"}, "count is 'four', expected a whole number."),
        ({"count": 4.0}, "count is 4.0, expected a whole number."),
        ({"count": True}, "count is True, expected a whole number."),
        ({"rate": "1"}, "rate is '1', expected a number."),
        ({"rate": float("nan")}, "rate is nan, expected a number."),
        ({"is_on": 1}, "is_on is 1, expected true or false."),
        ({"name": 3}, "name is 3, expected a text or null."),
        ({"steps": [1, "2"]}, r"steps is \[1, '2'\], expected a list, each of its items a whole number."),
        ({"steps": "12"}, "steps is '12', expected a list"),
        ({"grid": 3}, "grid is 3, expected a list."),
        ({"options": []}, r"options is \[\], expected an object."),
    ],
)
def test_another_type_is_named_with_what_was_expected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_types(Config, values)

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mmattn.core.config_fields import changed, check_types, chosen, from_plain
from mmattn.errors import InputError


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
    path: str = field(default="", metadata={"help": "a file"})
    limit: int | None = field(default=5, metadata={"help": "at most"})

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < self.count:
            raise ValueError(f"limit {self.limit} is below count {self.count}.")


@dataclass
class Outer:
    inner: Config | None = None


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
        ({"kind": "c"}, "kind is 'c', expected one of a, b."),
    ],
)
def test_another_type_is_named_with_what_was_expected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_types(Config, values)


def test_a_config_is_made_of_json() -> None:
    assert from_plain(Config, {"steps": [3], "grid": [1, 2]}, what="The config") == Config(steps=(3,), grid=(1, 2))
    assert from_plain(Outer, {"inner": {"count": 2}}, what="The config") == Outer(Config(count=2))
    assert from_plain(Outer, {"inner": None}, what="The config") == Outer()


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Config, {"colour": 1, "age": 2}, "The config has no field age, colour; the file may be of a newer version."),
        (Config, {"count": 9}, "limit 5 is below count 9"),
        (Outer, {"inner": {"colour": 1}}, "inner has no field colour"),
        (Outer, {"inner": {"count": "x"}}, "count is 'x'"),
        (Outer, {"inner": 3}, "inner is 3, expected an object or null"),
    ],
)
def test_json_of_something_else_is_refused(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(cls, values, what="The config")


def test_fields_are_changed_and_null_is_a_value() -> None:
    config = Config(name="n")
    assert changed(config, {"steps": [5], "name": None, "limit": None}) == Config(steps=(5,), limit=None)
    assert config == Config(name="n")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "overrides names colour, which Config does not have"),
        ({"count": "two"}, "overrides do not fit the config: count is 'two', expected a whole number"),
        ({"count": 6}, "overrides do not fit the config: limit 5 is below count 6"),
    ],
)
def test_changes_that_do_not_fit_are_input_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        changed(Config(), values)


def test_a_run_chooses_among_fields_with_a_help_text(tmp_path: Path) -> None:
    assert chosen(Config(), {"limit": 7, "path": None}) == Config(limit=7)
    assert chosen(Config(), {"path": tmp_path}).path == tmp_path  # type: ignore[comparison-overlap]
    with pytest.raises(InputError, match=r"^count cannot be changed after training\. Choose among: limit, path\.$"):
        chosen(Config(), {"count": 2})
    with pytest.raises(InputError, match=r"^There is no option speed\. Choose among: limit, path\.$"):
        chosen(Config(), {"speed": 2})
    with pytest.raises(InputError, match="These choices do not fit the config: limit 0 is below count 1"):
        chosen(Config(), {"limit": 0})

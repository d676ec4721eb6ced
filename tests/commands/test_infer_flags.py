import argparse
from dataclasses import dataclass, field
from typing import Literal

import pytest

from mmattn.commands.infer import add_flags, given_flags
from tests.commands.fake_system.config import FakeConfig, FakeInferOptions


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, FakeInferOptions, choices={"recipe": ["plain", "plus"]})
    add_flags(parser, FakeConfig, unset="the checkpoint's")
    return parser.parse_args(list(words))


def test_only_typed_flags_are_returned_with_their_types() -> None:
    args = parse("--threshold", "0.25", "--mutual", "--count", "3", "--kind", "npy", "--recipe", "plus", "--no-soft")
    options = {"threshold": 0.25, "mutual": True, "count": 3, "kind": "npy", "recipe": "plus"}
    assert given_flags(args, FakeInferOptions) == options
    assert given_flags(args, FakeConfig) == {"soft": False}
    assert given_flags(parse(), FakeInferOptions) == given_flags(parse(), FakeConfig) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kind", "gif"), "invalid choice: 'gif'"),
        (("--recipe", "minus"), "invalid choice: 'minus'"),
        (("--threshold", "high"), "invalid float value: 'high'"),
        (("--count", "1.5"), "invalid int value: '1.5'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=message):
        parse(*words)


def test_the_help_shows_texts_defaults_and_both_forms_of_a_bool() -> None:
    parser = argparse.ArgumentParser(prog="x")
    add_flags(parser, FakeInferOptions)
    add_flags(parser, FakeConfig, unset="the checkpoint's")
    text = " ".join(parser.format_help().split())
    assert "--threshold FLOAT score, 100% is 1 (default: 0.5)" in text
    assert "--mutual, --no-mutual against each other (default: false)" in text
    assert "--sigma FLOAT smoothing (default: the checkpoint's)" in text
    assert "--kind {png,npy} file type (default: png)" in text
    assert "--count INT how many --" in text
    assert "--depth" not in text


@dataclass
class Wrong:
    sizes: tuple[int, ...] = field(default=(), metadata={"help": "several"})
    kind: Literal["a"] = "a"


def test_a_field_that_no_flag_can_hold_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.sizes is a tuple\[int, \.\.\.\], which no flag can hold"):
        add_flags(argparse.ArgumentParser(), Wrong)

"""What a predictor is asked to speak is checked before anything is spoken."""

from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.items import LinaItem, as_items, checked_seed


def test_texts_and_items_go_together():
    given = as_items(["Hello.", LinaItem("Bye.", "anna", np.int64(3), "last")])
    assert given == [LinaItem("Hello."), LinaItem("Bye.", "anna", 3, "last")]
    assert type(given[1].seed) is int


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("Hi", "expected a list of texts"),
        (5, "expected a list of texts"),
        (["Hi", None], "The item is None"),
        ([LinaItem(7, name="x")], "The text of 'x' is 7"),  # type: ignore[arg-type]
        ([LinaItem("Hi", seed=-1)], "The seed is -1, expected 0 or more"),
    ],
)
def test_what_is_no_text_is_named(items: Any, message: str):
    with pytest.raises(InputError, match=message):
        as_items(items)


@pytest.mark.parametrize("seed", [True, 1.5, "a", None])
def test_a_seed_is_a_whole_number(seed: Any):
    with pytest.raises(InputError, match="expected a whole number"):
        checked_seed(seed)

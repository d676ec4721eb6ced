"""One family of errors: what is shown, and what old callers catch."""

import pytest

import mmattn.core.errors
from mmattn import errors
from mmattn.errors import InputError, MediaError, MediaNotFoundError, MmattnError, OutputError, describe


def test_every_error_is_one_of_the_family_and_of_a_built_in_kind() -> None:
    kinds = {
        InputError: ValueError,
        MediaError: ValueError,
        MediaNotFoundError: FileNotFoundError,
        OutputError: OSError,
    }
    for kind, built_in in kinds.items():
        error = kind("The folder x is missing.", "Make it.")
        assert isinstance(error, MmattnError)
        assert isinstance(error, built_in)
        assert (str(error), describe(error)) == ("The folder x is missing. Make it.", (error.message, error.hint))


@pytest.mark.parametrize("name", errors.__all__)
def test_the_old_place_still_has_them(name: str) -> None:
    assert getattr(mmattn.core.errors, name) is getattr(errors, name)

"""Tensors into a network. What does not fit is told in one sentence, before anything is changed or memory asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from mmattn.errors import CheckpointError

__all__ = ["check_fit", "check_names", "check_sizes", "load_into"]

_HINT = "It was made for another configuration, or the file holds something else."


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str = "The checkpoint",
    hint: str = _HINT,
    ignored: tuple[str, ...] = (),
) -> None:
    """Loads tensors that must fit exactly; each is cast to the type that the module has in its place.

    Args:
        module: What is filled.
        tensors: State by name.
        what: Subject of the message.
        hint: What to do about a misfit.
        ignored: Beginnings of names in ``tensors`` that are left out, such as a classifier that was not built.

    Raises:
        CheckpointError: If names or shapes differ.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> load_into(layer, {"weight": nn.Parameter(layer.weight.new_tensor([[3]]))})
    >>> layer.weight.item()
    3.0
    """
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(ignored)}
    own = module.state_dict()
    # Old files have no counters of batches; nothing at inference reads them.
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    check_fit(given, own, optional=counters, what=what, hint=hint)
    module.load_state_dict(given, strict=False)


def check_fit(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    optional: Collection[str] = (),
    what: str = "The checkpoint",
    hint: str = _HINT,
) -> None:
    """Compares names and shapes.

    Args:
        tensors: What is given.
        expected: What is needed.
        optional: Names in ``expected`` that may be left out.
        what: Subject of the message.
        hint: What to do about a misfit.

    Raises:
        CheckpointError: With counts and the first names of what is missing or unexpected, and both shapes of the first
            that has another one.
    """
    problems = _different_names(tensors, expected, optional)
    both = [name for name in tensors if name in expected]
    misfits = [name for name in both if tensors[name].shape != expected[name].shape]
    if misfits:
        name = misfits[0]
        problems.append(
            f"it has {name} of shape {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)} "
            f"({len(misfits)} of {len(both)} tensors differ in shape)"
        )
    if problems:
        raise CheckpointError(f"{what} does not fit the model: {'; '.join(problems)}.", hint)


def check_names(given: Collection[str], expected: Collection[str], *, what: str = "The checkpoint") -> None:
    """Compares names alone, where shapes say nothing yet.

    Raises:
        CheckpointError: As :func:`check_fit`.

    >>> check_names(["a"], ["a"])
    """
    problems = _different_names(given, expected)
    if problems:
        raise CheckpointError(f"{what} does not fit the model: {problems[0]}.", _HINT)


def check_sizes(sizes: Mapping[str, int], tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Raises where a config asks for more than its tensors can hold, before memory for it is asked for.

    Args:
        sizes: Widths and numbers of layers of the model to build, by the names of the config's fields. Each is the
            length of a tensor's axis, or there are as many tensors.
        tensors: What it is to be filled with.
        what: Subject of the message.

    Raises:
        CheckpointError: If a size exceeds both; the message names its field.

    >>> check_sizes({"dim": 3}, {"weight": nn.Linear(3, 4).weight}, what="The model")
    """
    largest = max([len(tensors), *(length for tensor in tensors.values() for length in tensor.shape)])
    for name, size in sizes.items():
        if size > largest:
            raise CheckpointError(
                f"{what} does not fit its config: {name} makes a size of {size}, and no tensor in the file is longer "
                f"than {largest}.",
                "The config.json was changed, or belongs to another file.",
            )


def _different_names(given: Collection[str], expected: Collection[str], optional: Collection[str] = ()) -> list[str]:
    """Returns a clause that counts and shows what is missing and unexpected, in a list; empty if nothing is."""
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (
            ("missing", sorted(set(expected) - set(given) - set(optional))),
            ("unexpected", sorted(set(given) - set(expected))),
        )
        if names
    ]
    return [f"{' and '.join(parts)} tensors"] if parts else []

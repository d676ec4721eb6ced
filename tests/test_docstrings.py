"""What a docstring owes its reader: the shapes of tensors, the errors, and for mathematics an example that runs.

``python -m tests.test_docstrings`` prints how far every floor is, and what is missing where.
"""

import ast
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mmattn"
GOAL = 1.0  # of all public functions

# An array by any of its names: Tensor, ndarray, npt.NDArray[...], aliases such as UInt8Array.
ARRAY = re.compile(r"\b(?:Tensor|ndarray|npt|ArrayLike|\w*Array)\b")
# The tensors of a checkpoint, by name, have no shape in common.
BY_NAME = re.compile(r"\b(?:dict|Mapping)\[str, (?:torch\.)?Tensor\]")
# What stands between two commas of a shape: a size (`T`, `q_len`, `3`, `h w`), a sum, product or choice of sizes
# (`V + 1`, `B|1`, `2 K`), `...`, or `.` for a size that differs from tensor to tensor.
_SIZE = r"(?:[a-z]'? ?[a-z]'?(?!\w)|(?:\d+ ?)?[A-Za-z_]\w*'?|len\(\w+\)|\d+)"
_ITEM = rf"(?:\.\.\.|\.|\*\w+|{_SIZE}(?:\s*(?:[-+*/|]|//|or)\s*{_SIZE})*)"
SHAPE = re.compile(rf"(?<!\w)\(\s*({_ITEM}(?:\s*,\s*{_ITEM})+|{_ITEM}\s*,|\.\.\.)\s*\)")
# Words alone, as in (CSV, JSON), may be prose: a shape has a letter, as the field names sizes, n or m, or `...`, or
# ends in a number of channels or coordinates, or in a comma.
_LETTER = re.compile(r"\.\.\.|(?<![A-Za-z_])(?:[A-Z][a-z0-9']{0,3}|[nm])(?![A-Za-z_])|[A-Za-z]\w*, [2-9]$|\d\d, \d$|,$")
_SCALAR = re.compile(r"(?<![\w\])])\(\)")
POINTER = re.compile(r"\b(?:as|see)\s+:meth:`", flags=re.I)
DOCTEST = re.compile(r"^\s*>>> ", flags=re.M)
RAISES = re.compile(r"^( *)Raises:\n((?:\1 +.*\n?|\s*\n)*)", flags=re.M)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Entry:
    """A public function or method."""

    file: Path
    name: str
    node: Function
    owner: str
    """Docstring of the class; empty for a function."""

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def floor(self) -> str:
        return self.file.relative_to(PACKAGE).parts[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.node.lineno} {self.name}"


def decorators(node: Function) -> set[str]:
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def public(body: list[ast.stmt]) -> Iterator[Function]:
    for node in body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            names = decorators(node)
            if "overload" not in names and not any(name.endswith((".setter", ".deleter")) for name in names):
                yield node


def entries(file: Path) -> Iterator[Entry]:
    """Yields the public functions of a module and the public methods of its public classes."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield from (Entry(file, node.name, node, "") for node in public(tree.body))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            owner = ast.get_docstring(node) or ""
            yield from (Entry(file, f"{node.name}.{method.name}", method, owner) for method in public(node.body))


def package() -> list[Entry]:
    return [entry for file in sorted(PACKAGE.rglob("*.py")) for entry in entries(file)]


def annotations(node: Function) -> Iterator[str]:
    """Yields the types of everything that goes in and comes out."""
    args = node.args
    for argument in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if argument is not None and argument.annotation is not None:
            yield ast.unparse(argument.annotation)
    if node.returns is not None:
        yield ast.unparse(node.returns)


def needs_shapes(entry: Entry) -> bool:
    return any(ARRAY.search(BY_NAME.sub("", annotation)) for annotation in annotations(entry.node))


def names_a_shape(text: str) -> bool:
    """Whether a shape such as (B, H, T, D), (N,), (..., D), () or, for any shape, (...) stands in the text."""
    return any(_LETTER.search(match[1]) for match in SHAPE.finditer(text)) or bool(_SCALAR.search(text))


def has_shapes(entry: Entry) -> bool:
    return names_a_shape(entry.doc) or names_a_shape(entry.owner) or bool(POINTER.search(entry.doc))


def own_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what runs in a function itself, not in functions and classes defined inside."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*Function.__args__, ast.ClassDef, ast.Lambda)):
            yield child
            yield from own_statements(child)


def raised(node: Function) -> set[str]:
    """Returns the exception classes that a function raises by name; `raise` and `raise error` pass on another's."""
    found = set()
    for statement in own_statements(node):
        if isinstance(statement, ast.Raise) and statement.exc is not None:
            error = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
            name = ast.unparse(error).rpartition(".")[2]
            if name[:1].isupper():
                found.add(name)
    return found


def undocumented_errors(entry: Entry) -> set[str]:
    section = RAISES.search(f"{entry.doc}\n")
    named = set(re.findall(r"\w+(?=[\w., ]*:)", section[2])) if section else set()
    return set() if POINTER.search(entry.doc) else raised(entry.node) - named


def exported(file: Path) -> set[str]:
    """Returns a module's ``__all__``; empty if it has none."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def needs_example(entry: Entry) -> bool:
    """Public mathematics: what the packages of the kernels export, and metrics."""
    if entry.floor == "kernels":
        return entry.name in {name for file in PACKAGE.glob("kernels/**/__init__.py") for name in exported(file)}
    return entry.floor == "metrics" and "." not in entry.name


def has_example(entry: Entry) -> bool:
    return bool(DOCTEST.search(entry.doc))


@dataclass(frozen=True)
class Rule:
    """Who owes something, and who has paid."""

    concerns: Callable[[Entry], bool]
    kept: Callable[[Entry], bool]

    def offenders(self, found: list[Entry]) -> list[Entry]:
        return [entry for entry in found if self.concerns(entry) and not self.kept(entry)]

    def count(self, found: list[Entry]) -> tuple[int, int]:
        """Returns how many keep the rule, and how many it concerns."""
        concerned = sum(map(self.concerns, found))
        return concerned - len(self.offenders(found)), concerned


RULES = {
    "shapes": Rule(needs_shapes, has_shapes),
    "Raises": Rule(lambda entry: bool(raised(entry.node)), lambda entry: not undocumented_errors(entry)),
    "examples": Rule(needs_example, has_example),
}


def comment_lines(folder: Path) -> tuple[int, int]:
    """Returns the lines of a folder's code that carry a comment, and all lines."""
    comments = lines = 0
    for file in folder.rglob("*.py"):
        with file.open("rb") as stream:
            comments += sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(stream.readline))
        lines += len(file.read_text(encoding="utf-8").splitlines())
    return comments, lines


@pytest.fixture(scope="module")
def found() -> list[Entry]:
    return package()


@pytest.mark.parametrize("rule", RULES)
def test_every_public_function_keeps_the_rule(rule: str, found: list[Entry]) -> None:
    kept, concerned = RULES[rule].count(found)
    assert kept >= GOAL * concerned, "\n".join(map(str, RULES[rule].offenders(found)))


@pytest.mark.parametrize(
    "text",
    ["q: ``(B, H, T, D)``", "ids (N,)", "(..., D)", "an RGB image (H, W, 3)", "(B|1, H|1, nq, 2 m)", "(B, T, V + 1)",
     "tensors ``(B, H, T, .)``", "the loss, ``()``", "(T or 1, D)", "``(N, *rest)``", "x (...), any shape",
     "(n + 1,)", "``(n, 2)``", "(frames,)", "(height, width, 3)", "(B, h'w', C)", "(B, h w + 1, C)", "(256, 3)",
     "(len(indices), H, W, 3)"],
)  # fmt: skip
def test_a_shape_is_recognised(text: str) -> None:
    assert names_a_shape(text)


@pytest.mark.parametrize(
    "text",
    ["(arXiv 2312.06635, Eq. 3)", "reads (CSV, JSON, npz)", "(Titans, equation 12)", "f()", "f(B, T)", "g(...)",
     "a number (see there)", "x (B)", "in (0, 1)", "in (0, 2)", "(batch, tokens)", "(Yang et al., arXiv 2312)"],
)  # fmt: skip
def test_prose_in_parentheses_is_no_shape(text: str) -> None:
    assert not names_a_shape(text)


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f(x):\n    raise ValueError(x)", {"ValueError"}),
        ("def f(x):\n    raise errors.InputError", {"InputError"}),
        ('def f(x):\n    """F.\n\n    Raises:\n        ValueError: always.\n    """\n    raise ValueError', set()),
        ('def f():\n    """F.\n\n    Raises:\n        KeyError: or OSError.\n    """\n    raise OSError', {"OSError"}),
        ("def f(x):\n    try:\n        g()\n    except OSError as error:\n        raise\n    raise error", set()),
        ("def f(x):\n    def _check():\n        raise ValueError\n    return _check", set()),
    ],
)  # fmt: skip
def test_errors_without_a_line_under_raises_are_found(tmp_path: Path, source: str, missing: set[str]) -> None:
    file = tmp_path / "m.py"
    file.write_text(source)
    (entry,) = entries(file)
    assert undocumented_errors(entry) == missing


def test_private_and_overloaded_functions_owe_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(
        "@overload\ndef f(x: int) -> int: ...\ndef f(x): ...\ndef _g(): ...\n"
        "class A:\n    def __init__(self): ...\n    def forward(self): ...\n    def _h(self): ...\n"
        "class _B:\n    def forward(self): ...\n"
    )
    assert [entry.name for entry in entries(file)] == ["f", "A.forward"]


def main() -> None:
    everything = package()
    for name, rule in RULES.items():
        print(f"{name}: {'{} of {}'.format(*rule.count(everything))}")
        for floor in sorted({entry.floor for entry in everything if rule.concerns(entry)}):
            kept, concerned = rule.count([entry for entry in everything if entry.floor == floor])
            print(f"  {floor:<12} {kept:>4} of {concerned:<4} {kept / concerned:6.1%}")
        for entry in rule.offenders(everything):
            print(f"  {entry}")
    print("lines with a comment in kernels: {} of {}".format(*comment_lines(PACKAGE / "kernels")))


if __name__ == "__main__":
    main()

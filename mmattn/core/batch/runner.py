"""The batch runner behind every ``mmattn infer``: reads ahead, predicts in batches, and never loses a finished item.

A failing item is written to ``errors.jsonl`` and the others go on; a batch that fails as a whole is repeated item by
item, so that one bad input takes no other with it. Results appear under their names only when they are complete (see
:mod:`mmattn.core.batch.journal`), so Ctrl-C, a crash or a full disk cost at most the batch at work. Running the same
command again does what is left, in the batches of the first run, so that its results are those of a run that nothing
stopped.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from mmattn import __version__
from mmattn.core.batch.inputs import InferRequest, InputItem, expand_inputs
from mmattn.core.batch.journal import Journal, Plan
from mmattn.core.predictor import Predictor, Result
from mmattn.core.seeding import seed_everything
from mmattn.errors import OutputError, describe

__all__ = ["EXIT_FINE", "EXIT_INTERRUPTED", "EXIT_SOME_FAILED", "run_batch"]

EXIT_FINE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 130
# What one item may fail with: anything. Decoders and models raise classes of their own (PIL's DecompressionBombError,
# cv2.error, av's FFmpegError), and one of ten thousand inputs must not end the run. Every error is recorded.
ITEM_ERRORS = (Exception,)
SHOWN_ERRORS = 20
log = logging.getLogger(__name__)

MakePredictor: TypeAlias = Callable[[Sequence[InputItem]], Predictor[Any, Any]]
Finish: TypeAlias = Callable[[Path, Sequence[dict[str, Any]]], None]


@dataclass(frozen=True)
class Loaded:
    """An item with what was read for it, or with the error that reading raised."""

    item: InputItem
    value: Any = None
    error: Exception | None = None


def run_batch(
    request: InferRequest,
    *,
    suffixes: Collection[str],
    items: Sequence[InputItem] | None = None,
    make_predictor: MakePredictor,
    read: Callable[[Path], Any] | None = None,
    finish: Finish | None = None,
) -> int:
    """Runs a predictor over the request's inputs and returns the exit code: 0 fine, 1 some failed, 130 interrupted.

    Args:
        request: What to do.
        suffixes: Accepted file name endings.
        items: What to run over, for systems that take the files apart; None takes the files behind the inputs.
        make_predictor: Builds the predictor; gets all items of the run, finished ones included. Called only when
            there is something to do.
        read: Turns a path into what the predictor takes, called from worker threads; None hands over the path. The
            content of an item that has been read is handed over as it is.
        finish: Called at the end with the output folder and the records of all finished items, also after an
            interruption; the place to write an overview page.

    Raises:
        InputError: If an input leads nowhere, or the folder holds results of other options.
        OutputError: If the output folder cannot be written, is full, or another run holds it.
    """
    if items is None:
        items = expand_inputs(request.inputs, suffixes=suffixes, output=request.output)
    items = items[: request.limit]
    journal = Journal(request.output, describe_run(request), fsync=request.fsync)
    if request.dry_run:
        return show_plan(journal.plan(items, overwrite=request.overwrite))
    with journal.opened():
        plan = journal.plan(items, overwrite=request.overwrite)
        predictor = make_predictor(plan.items) if plan.todo else None
        journal.begin(plan, overwrite=request.overwrite)
        run = Run(request, journal, plan, read or same_path)
        try:
            if predictor is not None:
                run.process(predictor)
            state = "finished"
        except KeyboardInterrupt:
            state = "interrupted"
        except OutputError:
            # What is finished is known without run.json, so a full disk may keep it from being renewed.
            with suppress(OutputError):
                journal.end(plan, "failed")
            raise
        journal.end(plan, state)
        if finish is not None:
            with journal.output.writing():
                finish(journal.folder, journal.results())
    return run.summarise(state)


def show_plan(plan: Plan) -> int:
    """Prints what a run would do."""
    for item in plan.todo:
        print(f"would process {item.key} -> {item.name}".encode(errors="backslashreplace").decode())
    print(f"{len(plan.todo)} to do, {len(plan.items) - len(plan.todo)} done already; nothing was written.")
    return EXIT_FINE


def describe_run(request: InferRequest) -> dict[str, Any]:
    """Returns what ``run.json`` says about a run besides its items."""
    return {
        "system": request.system,
        "options": request.result_options(),
        "execution": {"device": request.device, "batch_size": request.batch_size, "workers": request.workers},
        "versions": {"mmattn": __version__, "python": platform.python_version(), **library_versions()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that numbers can depend on."""
    found = {}
    for name in ("torch", "numpy", "pillow"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Run:
    """One pass over the items that are left.

    Args:
        request: What to do.
        journal: Where to write.
        plan: What is left.
        read: Turns a path into what the predictor takes.
    """

    def __init__(self, request: InferRequest, journal: Journal, plan: Plan, read: Callable[[Path], Any]) -> None:
        self.request = request
        self.journal = journal
        self.plan = plan
        self.read = read
        self.left = frozenset(item.key for item in plan.todo)
        self.succeeded = 0
        self.failed = 0

    def process(self, predictor: Predictor[Any, Any]) -> None:
        """Predicts and saves everything on the plan."""
        skipped = len(self.plan.items) - len(self.plan.todo)
        batches = read_ahead(self.plan.batches(self.request.batch_size), self.read, workers=self.request.workers)
        bar = tqdm(total=len(self.plan.items), initial=skipped, unit="item", file=sys.stderr)
        with bar, closing(batches):
            for batch in batches:
                self.journal.output.check()
                for loaded in batch:
                    if loaded.error is not None:
                        self.fail(loaded.item, loaded.error)
                self.predict(predictor, [loaded for loaded in batch if loaded.error is None])
                bar.update(sum(loaded.item.key in self.left for loaded in batch))

    def predict(self, predictor: Predictor[Any, Any], batch: Sequence[Loaded]) -> None:
        """Predicts a batch at once, or item by item when that fails, and saves the results.

        Raises:
            RuntimeError: If the predictor does not return one result for each item.
        """
        if not batch:
            return
        started = time.perf_counter()
        seed_everything(self.request.seed, [loaded.item.name for loaded in batch])
        try:
            results = list(predictor.predict_batch([loaded.value for loaded in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"the predictor returned {len(results)} results for {len(batch)} items")
        except ITEM_ERRORS as error:
            if len(batch) == 1:
                self.fail(batch[0].item, error)
                return
            log.info("a batch of %d failed (%s); trying its items one by one", len(batch), error)
            for loaded in batch:
                if loaded.item.key in self.left:
                    self.predict(predictor, [loaded])
            return
        seconds = (time.perf_counter() - started) / len(batch)
        for loaded, result in zip(batch, results, strict=True):
            if loaded.item.key in self.left:
                self.save(loaded.item, result, seconds)

    def save(self, item: InputItem, result: Result, seconds: float) -> None:
        """Saves one result; ``seconds`` is its share of the prediction, to which saving is added."""
        started = time.perf_counter()

        def numbers() -> dict[str, Any]:
            return {"seconds": round(seconds + time.perf_counter() - started, 6), **result.to_json()}

        try:
            self.journal.add_result(item, result.save, numbers)
        except OutputError:
            raise
        except ITEM_ERRORS as error:
            self.fail(item, error)
        else:
            self.succeeded += 1

    def fail(self, item: InputItem, error: Exception) -> None:
        """Records a failed item and shows the first few; one that was done before stays done."""
        if item.key not in self.left:
            return
        message, hint = describe(error)
        if not hasattr(error, "message"):
            # A built-in error's text alone is often no sentence: KeyError('x') reads 'x'.
            message = f"{type(error).__name__}: {message}"
        self.journal.add_error(item, message, hint)
        self.failed += 1
        log.debug("item %s failed", item.key, exc_info=error)
        if self.failed <= SHOWN_ERRORS:
            where = "" if item.key in message else f"{item.key}: "
            tqdm.write(f"failed: {where}{message} {hint}".rstrip(), file=sys.stderr)
        elif self.failed == SHOWN_ERRORS + 1:
            tqdm.write("failed: more items; see errors.jsonl", file=sys.stderr)

    def summarise(self, state: str) -> int:
        """Prints the last line and returns the exit code."""
        skipped = len(self.plan.items) - len(self.plan.todo)
        parts = [f"{self.succeeded} done"]
        parts += [f"{skipped} done before"] if skipped else []
        parts += [f"{self.failed} failed (see errors.jsonl)"] if self.failed else []
        if state == "interrupted":
            left = len(self.plan.todo) - self.succeeded - self.failed
            parts.append(f"interrupted with {left} left; run the same command to go on")
        print(f"{', '.join(parts)} -> {self.journal.folder}", file=sys.stderr)
        if state == "interrupted":
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self.failed else EXIT_FINE


def read_ahead(
    batches: Sequence[Sequence[InputItem]], read: Callable[[Path], Any], *, workers: int
) -> Generator[list[Loaded], None, None]:
    """Yields the batches with their items read, in order, while threads read the next ones.

    At most ``workers`` items more than the largest batch has are held besides the batch that was yielded.
    """
    if workers == 0:
        for batch in batches:
            yield [load(item, read) for item in batch]
        return
    left = (item for batch in batches for item in batch)
    ahead = max(map(len, batches), default=0) + workers
    pending: deque[Future[Loaded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        for batch in batches:
            while len(pending) < ahead and (item := next(left, None)) is not None:
                pending.append(pool.submit(load, item, read))
            yield [pending.popleft().result() for _ in batch]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def load(item: InputItem, read: Callable[[Path], Any]) -> Loaded:
    """Reads one item; the error of a bad one is returned, not raised."""
    try:
        return Loaded(item, read(item.path) if item.content is None else item.content)
    except ITEM_ERRORS as error:
        return Loaded(item, error=error)


def same_path(path: Path) -> Path:
    """Reads nothing: the predictor opens the file itself."""
    return path

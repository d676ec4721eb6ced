"""The ``mmattn`` command: finds the sub-command, and turns errors into one message and an exit code.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once. Each sub-command is a module of
:mod:`mmattn.commands` with ``main(argv) -> int``. Exit codes: 0 fine, 1 some items failed, 2 usage, 130 interrupted.

What a system provides
----------------------
A system is one line in :data:`mmattn.commands.systems.SYSTEMS` (``"crane": "mmattn.vision.crane"``). Its package has,
by these names, ``Name`` being the capitalised system name:

``config``
    ``NameConfig`` and ``NameInferOptions``: dataclasses, no torch. Each field whose metadata has a ``help`` text
    becomes a flag of ``mmattn infer``; a field of ``NameConfig`` that is not given on the command line stays as the
    checkpoint has it. Optionally ``RECIPES``, whose keys are the choices of a field called ``recipe``.
``predictor``
    ``NamePredictor.from_pretrained(source, *, device, options=NameInferOptions(...), **overrides)``.
``commands``
    No torch at import. Any of these functions; a command without its function says that the system has none.
    ``infer(request: InferRequest) -> int``: calls :func:`mmattn.core.runner.run_batch`.
    ``convert(args) -> int``: ``args.file: Path``, ``args.output: Path``.
    ``export(args) -> int``: ``args.checkpoint: str``, ``args.output: Path``.
    ``calibrate(args) -> int``: ``args.folder: Path``, ``args.checkpoint``, ``args.device``, ``args.output: Path | None``.
    ``data_make(args) -> int``: ``args.path: Path``, ``args.seed: int``.
    ``data_check(args) -> int``: ``args.path: Path``.
    ``add_arguments(command, parser) -> None``: optional; adds the system's own flags to one of ``"convert"``,
    ``"export"``, ``"calibrate"``, ``"data_make"``, ``"data_check"``; they arrive in ``args``.

In :mod:`mmattn.ui`, ``ui.<system>.build_app(predictors)`` takes a mapping of names to predictors.
"""

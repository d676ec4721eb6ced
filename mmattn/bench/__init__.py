"""Benchmarks: our form of a computation against the straightforward one, timed fairly.

A benchmark is a module with one function ``run(options: Options) -> Report``. It builds a closure for our form and one
for each peer, gives them to [`compare`][mmattn.bench.timer.compare] - one process, interleaved runs, outputs compared
first - and puts what comes back into a [`Report`][mmattn.bench.report.Report]. ``mmattn bench NAME`` runs it.
"""

BENCHMARKS: dict[str, str] = {
    "attention": "mmattn.bench.attention",
    "aupro": "mmattn.bench.aupro",
    "crane_attention": "mmattn.bench.crane:attention",
    "crane_block_memory": "mmattn.bench.crane:block_memory",
    "crash_forward": "mmattn.bench.crash:forward",
    "crash_metrics": "mmattn.bench.accident_metrics",
    "crash_streaming": "mmattn.bench.crash:streaming",
    "crash_training": "mmattn.bench.crash:training",
    "crash_video": "mmattn.bench.crash_video",
    "dattn": "mmattn.bench.crane:dattn",
    "lina_decode": "mmattn.bench.lina:decode",
    "lina_speech": "mmattn.bench.lina:speech",
    "linear": "mmattn.bench.linear",
}
"""Name of a benchmark -> ``module`` (its function ``run``) or ``module:function``: `Options` in, `Report` out."""

__all__ = ["BENCHMARKS"]

"""``make demo``: every finished system on its sample inputs, with a page that shows what came out.

A system is finished when its embedded model ships with the package. Everything is written below ``--output``; nothing
is fetched.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mmattn
from mmattn.cli import main as mmattn_main
from mmattn.media.image import read_image
from mmattn.viz.heatmap import side_by_side

ASSETS = Path(mmattn.__file__).parent / "assets"
TITLES = {
    "crane": "Crane: defects in pictures of things it was never shown",
    "crash": "CRASH: accidents seen coming, in clips it was never trained on",
    "lina": "Lina: sentences spoken that it was never trained on",
}


def finished_systems() -> list[str]:
    return sorted(folder.parent.name for folder in ASSETS.glob("*/model.safetensors"))


def run_system(system: str, output: Path) -> dict[str, Any]:
    """Runs one system over its samples and returns the row of the table."""
    samples = ASSETS / system / "samples"
    started = time.perf_counter()
    code = mmattn_main(["infer", system, str(samples), "--output", str(output / system), "--overwrite"])
    results = [json.loads(line) for line in (output / system / "results.jsonl").read_text().splitlines()]
    write_strip(output / f"{system}.jpg", output / system, results)
    return {"system": system, "items": len(results), "seconds": time.perf_counter() - started, "exit": code}


SHOWN = ((".picture.jpg", ".overlay.png", (256, 256)), (".peak.png", ".curve.png", (320, 240)))
"""Endings of the two outputs of a result that stand above each other, and their size: of a picture, of a video."""


def write_strip(target: Path, folder: Path, results: list[dict[str, Any]], *, count: int = 6) -> None:
    """Writes one picture of the first results, two outputs of each above each other; the README shows it."""
    columns = []
    for record in results:
        for *ends, size in SHOWN:
            names = [name for end in ends for name in record["outputs"] if name.endswith(str(end))]
            if len(names) != 2:
                continue
            pair = [np.asarray(Image.fromarray(read_image(folder / name)).resize(size)) for name in names]
            title = Path(record["input"]).stem.replace("_", " ")
            columns.append((f"{title}  {record['score']:.2f}", np.concatenate(pair)))
    if columns:
        titles, pictures = zip(*columns[:count], strict=True)
        Image.fromarray(side_by_side(pictures, titles)).save(target, quality=88)


def write_index(output: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the page that frames each system's own gallery."""
    sections = "\n".join(
        f"<section><h2>{escape(TITLES.get(str(row['system']), str(row['system'])))}</h2>"
        f"<p>{row['items']} inputs in {row['seconds']:.1f} s on this machine · "
        f"<a href='{row['system']}/index.html'>open the gallery</a> · "
        f"<a href='{row['system']}/results.jsonl'>results.jsonl</a></p>"
        f"<iframe src='{row['system']}/index.html' title='{row['system']}' loading='lazy'></iframe></section>"
        for row in rows
    )
    (output / "index.html").write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'><title>mmattn demo</title><style>"
        "body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f6f8;color:#17202a}"
        "header{padding:28px 5vw;background:#12343b;color:#fff}h1{margin:0}section{padding:18px 5vw}"
        "iframe{width:100%;height:80vh;border:0;border-radius:12px;box-shadow:0 1px 8px #0003;background:#fff}"
        "@media(prefers-color-scheme:dark){body{background:#11171c;color:#e6edf3}a{color:#7fd1c7}}"
        f"</style><header><h1>mmattn</h1>What the installed systems make of their samples.</header>{sections}</html>",
        encoding="utf-8",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to write")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    rows = [run_system(system, output) for system in finished_systems()]
    write_index(output, rows)
    print(f"\n{'system':<10}{'inputs':>8}{'seconds':>10}  result")
    for row in rows:
        print(
            f"{row['system']:<10}{row['items']:>8}{row['seconds']:>10.1f}  {output / str(row['system']) / 'index.html'}"
        )
    print(f"\nOpen {output / 'index.html'} in a browser.")
    return 0 if rows and all(row["exit"] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Settings every test runs under: no network, one thread, fixed seeds."""

from __future__ import annotations

import os

# huggingface_hub reads these when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("MPLBACKEND", "Agg")

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Starts every test from the same random state."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may use the global generator
    torch.manual_seed(0)

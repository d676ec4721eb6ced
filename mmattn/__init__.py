"""mmattn: five attention-based multimodal systems on one small layer of efficient-attention kernels.

Importing the package is cheap: it holds the version only. Import what you need from the sub-packages, for example
``from mmattn.kernels import attention`` or ``from mmattn.vision.crane.predictor import CranePredictor``.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]

"""What the tests share: small models, sample results, slow computations to compare with, and where files are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Public data sets and models that may lie beside the checkout.
SHARED = ROOT.parent / "shared"

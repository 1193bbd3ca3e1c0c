"""The original network, run by the vLLM environment's Python: saves its logits for prepared inputs.

    python tagger_in_torch.py PACKAGE.whl WEIGHTS.pth INPUTS.npz OUTPUT.npz

Nothing is installed: the wheel itself goes on the path.
"""

import sys

import numpy as np
import torch  # type: ignore[import-not-found]  # only in the vLLM environment


def main(package: str, weights: str, inputs: str, output: str) -> None:
    sys.path.insert(0, package)
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]  # on the path only now

    model = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights)
    model.eval()
    with torch.no_grad():
        logits = {name: model(torch.from_numpy(image)).numpy()[0] for name, image in np.load(inputs).items()}
    np.savez(output, **logits)


if __name__ == "__main__":
    main(*sys.argv[1:])

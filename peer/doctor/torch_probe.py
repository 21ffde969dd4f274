"""Asks torch for its device: `python -m peer.doctor.torch_probe DEVICE`, JSON on stdout.

A process of its own: loading torch takes seconds, and a broken driver may hang or crash.
"""

import json
import sys


def main() -> None:
    """Print what there is, as `peer.doctor.facts.Torch` has it."""
    import torch

    from peer.errors import ConfigurationError
    from peer.training.precision import resolve_device

    found: dict[str, object] = {
        "version": str(torch.__version__),
        "device": sys.argv[1],
        "name": "",
        "free_bytes": None,
        "problem": None,
    }
    try:
        device = resolve_device(sys.argv[1])
        found["device"] = str(device)
        x = torch.ones(64, 64, device=device)
        assert float((x @ x).sum()) == 64.0**3
        if device.type == "cuda":
            found["name"] = torch.cuda.get_device_name(device)
            found["free_bytes"] = torch.cuda.mem_get_info(device)[0]
    except (ConfigurationError, RuntimeError, AssertionError) as error:
        found["problem"] = str(error) or "the device computes nonsense"
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

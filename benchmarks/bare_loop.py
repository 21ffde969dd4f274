"""The rival of `overhead`: what anyone would write to train the demo model alone."""

import json
import sys
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from benchmarks.overhead import MICRO_BATCH, WARMUP_EPOCHS
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory


def main() -> None:
    """Train for `argv[1]` epochs on `argv[2]` threads and print how fast it was."""
    epochs, threads = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    run = RunDirectory.open(demo_run_path())
    manifest, row = run.manifest, run.manifest.task.sequence_length
    config = GPT2Config(**json.loads(run.read_blob(manifest.model.config)))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    micro_batches = manifest.batch.target_loss_terms // (MICRO_BATCH * row)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, 2_000_000, dtype=np.int64)
    optimizer_s = 0.0
    for epoch in range(WARMUP_EPOCHS + epochs):
        if epoch == WARMUP_EPOCHS:
            started_s, optimizer_s = time.perf_counter(), 0.0
        optimizer.zero_grad()
        for _ in range(micro_batches):
            starts = rng.integers(0, len(tokens) - row - 1, MICRO_BATCH)
            rows = torch.from_numpy(np.stack([tokens[s : s + row + 1] for s in starts]))
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            (loss / micro_batches).backward()
        stepped_s = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer_s += time.perf_counter() - stepped_s
    seconds = time.perf_counter() - started_s
    phases = {"local_work_and_rest": seconds - optimizer_s, "optimizer": optimizer_s}
    measured = {
        "tokens_per_second": epochs * micro_batches * MICRO_BATCH * row / seconds,
        "milliseconds_per_epoch": {name: 1000 * s / epochs for name, s in phases.items()},
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()

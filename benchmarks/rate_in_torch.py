"""One run of GPT-2 at one rate in plain PyTorch, as a shell loop over rates would start it.

The tokens, batches, shape and measurements are those of `benchmarks/sweep.py`; prints the
validation loss in nats per token.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from gpt2_in_torch import GPT2

from scaling.data.loader import TrainStream, Windows, evaluation
from scaling.sizes import Size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path, help="what all runs have in common, as JSON")
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args()
    job = json.loads(options.job.read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    low = job["precision"] == "bfloat16"
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=low)
    model = GPT2(Size(**job["size"])).to(device)
    for name, value in model.named_parameters():  # as GPT-2 begins
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=0.02)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(value)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0,
        fused=True,
    )  # fmt: skip
    context, rows = job["size"]["context"], job["batch_windows"]
    stream = TrainStream(Windows(Path(job["train"]), context=context), batch_windows=rows, seed=0)
    warmup = job["warmup_updates"]

    def of(batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, targets = (
            torch.from_numpy(batch[f"{name}_BT"].astype(np.int64)).to(device, non_blocking=True)
            for name in ("tokens", "targets")
        )
        return tokens, targets

    began = time.perf_counter()
    for step in range(job["updates"]):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 0.5) / warmup)
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = model(*of(stream.batch(step)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    float(loss.detach())
    train_seconds = time.perf_counter() - began
    total, seen = 0.0, 0
    with torch.no_grad(), autocast:
        windows = Windows(Path(job["validation"]), context=context)
        for batch in evaluation(windows, batch_windows=rows):
            kept = int((batch["weights_BT"][:, 0] > 0).sum())
            whole = {name: x[:kept] for name, x in batch.items()}
            total += float(model(*of(whole))) * kept
            seen += kept
    loss = total / seen
    print(json.dumps({"rate": options.rate, "loss": loss, "train_seconds": train_seconds}))


if __name__ == "__main__":
    main()

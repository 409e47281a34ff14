"""The dense encoders in PyTorch, compiled with max-autotune (CUDA graphs), timed with CUDA events.

    python bench/cuda/torch_model.py [SHAPE:BATCH...]

Random weights of the shape, random ids, bf16, last hidden states on the device; median of 200 calls.
"""
import statistics
import sys
import time

import torch
from transformers import BertConfig, BertModel

SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
LENGTH = 128


def median_us(call, calls: int = 200) -> float:
    for _ in range(10):
        call()
    torch.cuda.synchronize()
    times = []
    for _ in range(calls):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(1000 * start.elapsed_time(stop))
    return statistics.median(times)


def main() -> None:
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for cell in sys.argv[1:] or [f"{name}:{batch}" for name in SHAPES for batch in (1, 32)]:
        name, batch = cell.split(":")[0], int(cell.split(":")[1])
        torch._dynamo.reset()
        config = BertConfig(**SHAPES[name], attn_implementation="sdpa")
        model = BertModel(config, add_pooling_layer=False).cuda().to(torch.bfloat16).eval()
        ids = torch.randint(1000, 30000, (batch, LENGTH), device="cuda")
        begun = time.time()
        eager = median_us(lambda: model(ids).last_hidden_state)
        compiled = torch.compile(model, mode="max-autotune", dynamic=False)
        # No padding: without a mask, as the packed batch on the other side.
        best = median_us(lambda: compiled(ids).last_hidden_state)
        print(f"{name}, bf16, batch {batch} x {LENGTH}: compiled {best:.1f} us, eager {eager:.1f} us "
              f"({time.time() - begun:.0f} s to compile and time)", flush=True)


if __name__ == "__main__":
    main()

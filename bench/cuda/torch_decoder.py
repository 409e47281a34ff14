"""A Llama in PyTorch (transformers) beside `espalier bench model --synthetic llama-H-L --device cuda`.

    python bench/cuda/torch_decoder.py [H-L:PRECISION:IDS...]

Random weights of that shape, random ids, one sequence. A prompt of IDS tokens, which asks for the logits of the
last; and token after token behind it, with a static cache. Eagerly; and compiled: decoding through CUDA graphs
(mode="reduce-overhead") and with algorithms tuned ("max-autotune"), the better of them. Microseconds, medians,
from CUDA events: logits stay on the device. float32 without TF32.
"""
import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

PRECISIONS = {"bf16": torch.bfloat16, "f32": torch.float32}
WINDOW = 4096


def config_of(hidden: int, blocks: int) -> LlamaConfig:
    heads = max(1, hidden // 128)
    return LlamaConfig(hidden_size=hidden, num_hidden_layers=blocks, num_attention_heads=heads,
                       num_key_value_heads=heads // 4 if heads % 4 == 0 else heads,
                       intermediate_size=(hidden * 8 // 3 + 255) // 256 * 256, vocab_size=32000,
                       max_position_embeddings=WINDOW, rms_norm_eps=1e-5, attn_implementation="sdpa")


def timed(call, calls: int) -> list[float]:
    times = []
    for i in range(calls):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call(i)
        stop.record()
        stop.synchronize()
        times.append(1000 * start.elapsed_time(stop))
    return times


def median_us(call, calls: int = 100, warm: int = 10) -> float:
    timed(call, warm)
    return statistics.median(timed(call, calls))


class Decoding:
    """A prompt in a static cache, and steps behind it, again and again at the same places."""

    def __init__(self, model: LlamaForCausalLM, ids: int):
        self.model, self.ids = model, ids
        length = min(WINDOW, (ids + 64 + 255) // 256 * 256)
        self.cache = StaticCache(config=model.config, max_cache_len=length)
        self.prompt = torch.randint(3, 32000, (1, ids), device="cuda")
        self.positions = torch.arange(ids, device="cuda")[None]
        self.token = torch.randint(3, 32000, (1, 1), device="cuda")
        self.place = torch.tensor([[ids]], device="cuda")

    def fill(self, _=0):
        self.cache.reset()
        return self.model(self.prompt, position_ids=self.positions, past_key_values=self.cache, use_cache=True,
                          logits_to_keep=1).logits

    def step(self, forward):
        return forward(self.token, position_ids=self.place, past_key_values=self.cache, use_cache=True).logits


def decode_us(decoding: Decoding, forward) -> float:
    """The first steps behind a prompt; the cache is filled anew before it is full."""
    times = []
    for _ in range(4):
        decoding.fill()
        times.append(timed(lambda _: decoding.step(forward), 30)[10:])
    return statistics.median(sum(times[1:], []))


def main() -> None:
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    for cell in sys.argv[1:] or ["2048-8:bf16:128"]:
        shape, precision, ids = cell.split(":")
        hidden, blocks = map(int, shape.split("-"))
        with torch.device("cuda"):
            model = LlamaForCausalLM(config_of(hidden, blocks)).to(PRECISIONS[precision]).eval()
        decoding = Decoding(model, int(ids))
        found = {"prompt, eager": median_us(lambda _: decoding.model(decoding.prompt, use_cache=False,
                                                                     logits_to_keep=1).logits, 30, 5),
                 "token, eager": decode_us(decoding, model.forward)}
        for mode in ("reduce-overhead", "max-autotune"):
            begun = time.time()
            try:
                torch._dynamo.reset()
                forward = torch.compile(model.forward, mode=mode)
                found[f"token, {mode}"] = decode_us(decoding, forward)
                if mode == "reduce-overhead":
                    whole = torch.compile(lambda p: model(p, use_cache=False, logits_to_keep=1).logits, mode=mode)
                    found[f"prompt, {mode}"] = median_us(lambda _: whole(decoding.prompt), 30, 5)
            except Exception as error:  # what does not compile is said, and the rest goes on
                print(f"{cell}: {mode}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            print(f"  ({mode}: {time.time() - begun:.0f} s)", flush=True)
        print(f"llama-{shape}, {precision}, {ids} ids: "
              + ", ".join(f"{name} {us:.1f} us" for name, us in found.items()), flush=True)
        del model, decoding
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

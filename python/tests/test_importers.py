"""Random checkpoints in the published layouts, converted by the command, against the published definitions."""

import json
import os
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")

import espalier  # noqa: E402
from published_models import BertWithFFF, Crammed  # noqa: E402

COMMAND = os.environ.get("ESPALIER_COMMAND")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="ESPALIER_COMMAND names no command to convert with")

WORDS = 211


def convert(folder, *options):
    file = folder / "model.esp"
    file.unlink(missing_ok=True)
    done = subprocess.run([COMMAND, "convert", folder, "-o", file, *options], capture_output=True, text=True)
    return file if done.returncode == 0 else done.stderr


def as_numpy(tensor):
    """Debian's PyTorch is compiled for another NumPy: values go through Python, exactly."""
    dtype = {torch.float32: np.float32, torch.int64: np.int64}[tensor.dtype]
    return np.array(tensor.flatten().tolist(), dtype=dtype).reshape(tuple(tensor.shape))


def save(folder, tensors, config):
    safetensors.save_file({name: as_numpy(t) for name, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def crammed_config(hidden, heads, layers, depth, trees, positions, labels, head_width):
    """config.json as save_pretrained writes it: the architecture's file, resolved."""
    arch = {
        "architectures": ["ScriptableCrammedBERT"], "num_transformer_layers": layers, "intermed_type": "fff",
        "hidden_size": hidden, "intermed_size": trees, "intermed_depth": depth, "hidden_dropout_prob": 0.1,
        "norm": "LayerNorm", "norm_eps": 1e-12, "norm_scheme": "pre", "nonlin": "GELU", "tie_weights": True,
        "decoder_bias": False, "objective_layout": "MLM", "ffn_layer_frequency": 1, "skip_head_transform": True,
        "use_bias": False, "final_norm": True, "num_labels": labels,
        "embedding": {"vocab_size": WORDS, "pos_embedding": "scaled-sinusoidal", "dropout_prob": 0.1,
                      "pad_token_id": 0, "max_seq_length": positions, "embedding_dim": hidden, "normalization": True,
                      "stable_low_precision": False},
        "attention": {"type": "self-attention", "causal_attention": False, "num_attention_heads": heads,
                      "dropout_prob": 0.1, "skip_output_projection": False, "qkv_bias": False,
                      "rotary_embedding": False, "seq_op_in_fp32": False, "sequence_op": "torch-softmax"},
        "classification_head": {"pooler": "avg", "include_ff_layer": True, "head_dim": head_width, "nonlin": "Tanh",
                                "classifier_dropout": 0.1},
    }  # fmt: skip
    return {"model_type": "crammedBERT", "arch": arch}


SHAPES = {  # hidden, heads, layers, depth, trees, positions, labels, head width
    "1x11": (48, 4, 2, 11, 1, 128, 3, 1024),
    "128x4": (64, 4, 3, 4, 128, 40, 2, 1024),
}


def make_crammed(folder, shape, bias=True, classifier=True):
    torch.manual_seed(5)
    hidden, heads, layers, depth, trees, positions, labels, head_width = shape
    model = Crammed(WORDS, hidden, heads, layers, depth, trees, positions, labels, head_width, bias).eval()
    tensors = dict(model.state_dict())
    if not classifier:
        tensors = {n: t for n, t in tensors.items() if n.startswith("encoder.")}
        tensors["decoder.weight"] = tensors["encoder.embedding.word_embedding.weight"].clone()
    save(folder, tensors, crammed_config(*shape))
    return model


def largest_difference(positions, ours, published, count=50):
    """Over so many random inputs without a hairline, of which there must be one in four at least."""
    random = np.random.default_rng(6)
    worst, compared, drawn = 0.0, 0, 0
    while compared < count:
        ids = random.integers(1, WORDS, random.integers(1, positions + 1)).astype(np.int32)
        with torch.no_grad():
            expected, margin = published(torch.tensor(ids.tolist()))
        drawn += 1
        assert drawn <= 4 * count
        if margin < 1e-5:
            continue
        compared += 1
        worst = max(worst, np.abs(ours(ids) - np.array(expected.tolist(), np.float32)).max())
    return worst


@pytest.mark.parametrize("name", SHAPES)
def test_ultrafastbert_logits(tmp_path, name):
    published = make_crammed(tmp_path, SHAPES[name])
    file = convert(tmp_path, "--head-name", "nli")
    context = espalier.Context(espalier.Model(file))
    assert largest_difference(SHAPES[name][5], lambda ids: context.score_ids(ids, head="nli")[0], published) < 2e-4


def test_the_raw_pretraining_checkpoint(tmp_path):
    published = make_crammed(tmp_path, SHAPES["1x11"], classifier=False)
    context = espalier.Context(espalier.Model(convert(tmp_path)))
    words = np.array(published.encoder.embedding.word_embedding.weight.tolist(), np.float32)

    def masked_words(ids):
        hidden, margin = published.hidden(ids)
        return hidden @ published.encoder.embedding.word_embedding.weight.T, margin

    assert largest_difference(SHAPES["1x11"][5], lambda ids: context.encode(ids) @ words.T, masked_words) < 2e-4


def test_the_tie_rule_is_asked_for_where_the_layout_does_not_say(tmp_path):
    published = make_crammed(tmp_path, SHAPES["128x4"], bias=False)
    assert "--zero-goes left or right" in convert(tmp_path)
    context = espalier.Context(espalier.Model(convert(tmp_path, "--zero-goes", "right")))
    assert largest_difference(SHAPES["128x4"][5], lambda ids: context.score_ids(ids)[0], published) < 2e-4


def wordpiece_json(words, **changes):
    """tokenizer.json as the package `tokenizers` writes it for BERT's rules."""
    special = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}  # noqa: E731
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": w, "special": True} for i, w in enumerate(words) if w.startswith("[")],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": [special("[CLS]"), text, special("[SEP]")]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {w: i for i, w in enumerate(words)}}, **changes,
    }  # fmt: skip


def test_a_stored_tokenizer(tmp_path):
    make_crammed(tmp_path, SHAPES["1x11"])
    letters = "abcdefghijklmnopqrstuvwxyz.,!'\"é中"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), "the", "##ing", "river"]
    texts = ["The RIVER, rising!", "é É caf\u00e9 中中", "", "x\x07y [MASK] \t\n z", "word" * 40]

    def ids():
        context = espalier.Context(espalier.Model(convert(tmp_path)))
        return [context.tokenize(text).ids.tolist() for text in texts]

    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    expected = ids()  # held against the package `tokenizers` by the C++ tests
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer.json").write_text(json.dumps(wordpiece_json(words)))
    assert ids() == expected

    # As the training code makes them: the model is converted, takes ids, and one line says why.
    steps = [{"type": t} for t in ("Replace", "Replace", "NFD", "Lowercase", "StripAccents", "Replace", "Replace")]
    released = wordpiece_json(words, normalizer={"type": "Sequence", "normalizers": steps}, pre_tokenizer={"type": "Whitespace"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(released))
    done = subprocess.run([COMMAND, "convert", tmp_path, "-o", tmp_path / "model.esp"], capture_output=True, text=True)
    assert done.returncode == 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "tokenizer.json" in line]
    assert len(said) == 1 and "the model takes ids" in said[0]
    assert "normalizer: expected BertNormalizer, found Sequence of Replace, Replace, NFD, Lowercase" in said[0]
    assert "pre_tokenizer: expected BertPreTokenizer, found Whitespace" in said[0]
    with pytest.raises(espalier.Error, match="tokenizer|ids"):
        espalier.Model(tmp_path / "model.esp").embed("a text")


def test_wrong_and_missing_tensors_are_named(tmp_path):
    model = make_crammed(tmp_path, SHAPES["1x11"])
    tensors, config = dict(model.state_dict()), crammed_config(*SHAPES["1x11"])

    def refused(words, config=config, **changes):
        changed = dict(tensors)
        for name, tensor in changes.items():
            name = name.replace("__", ".")
            changed.pop(name) if tensor is None else changed.update({name: tensor})
        save(tmp_path, changed, config)
        message = convert(tmp_path)
        assert isinstance(message, str) and words in message and message.count("\n") == 1, message

    name = "encoder.layers.1.ffn.linear_out.weight"
    refused(f"tensor {name}: missing (expected shape [48, 4095])", **{name: None})
    refused(f"tensor {name}: expected shape [48, 4095], found [48, 4094]", **{name: tensors[name][:, :4094]})
    refused("tensor encoder.layers.0.attn.dense.bias: no part of the model uses it",
            **{"encoder.layers.0.attn.dense.bias": torch.zeros(48)})
    refused("tensor pooler.dense.weight: missing", pooler__dense__weight=None)
    other = json.loads(json.dumps(config))
    other["arch"]["attention"]["rotary_embedding"] = True
    refused("rotary_embedding: expected false, found true", config=other)
    other = json.loads(json.dumps(config))
    other["arch"]["intermed_depth"] = 10
    refused("linear_in.weight: expected shape [2047, 48], found [4095, 48]", config=other)


BERT = {"model_type": "bert", "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3,
        "vocab_size": WORDS, "max_position_embeddings": 60, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "intermediate_size": 192, "hidden_act": "gelu"}  # fmt: skip


def make_fff(folder, depth=5):
    torch.manual_seed(7)
    model = BertWithFFF(WORDS, 48, 4, 3, 8, depth, 60, 3, torch.nn.ReLU()).eval()
    save(folder, model.state_dict(), BERT)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(WORDS - 4))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return model


@pytest.mark.parametrize("depth", [0, 5])
@pytest.mark.parametrize("bias", ["keep", "drop"])
def test_fast_feedforward(tmp_path, bias, depth):
    published = make_fff(tmp_path, depth)
    context = espalier.Context(espalier.Model(convert(tmp_path, "--leaf-bias", bias, "--leaf-activation", "relu")))
    ours = lambda ids: context.score_ids(ids)[0]  # noqa: E731
    assert largest_difference(60, ours, lambda ids: published(ids, bias == "keep")) < 2e-4


def test_what_fast_feedforward_does_not_say_is_asked_for(tmp_path):
    model = make_fff(tmp_path)
    assert "--leaf-activation names it" in convert(tmp_path, "--leaf-bias", "keep")
    assert "--leaf-bias keep or drop" in convert(tmp_path, "--leaf-activation", "relu")
    tensors = dict(model.state_dict())
    del tensors["bert.encoder.layer.2.fff.b1s"]
    save(tmp_path, tensors, BERT)
    message = convert(tmp_path, "--leaf-bias", "keep", "--leaf-activation", "relu")
    assert "tensor bert.encoder.layer.2.fff.b1s: missing (expected shape [32, 8])" in message

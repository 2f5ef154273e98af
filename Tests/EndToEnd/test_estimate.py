"""`lorif estimate`: layers of models against transformers' own, bytes against those of stores, refusals."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import USAGE, attempt, refused, run, write_batch

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2}
WIDE = GROUPED | {"head_dim": 32}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4}
PADDED = {"pad_token_id": 0, "vocab_size": 97}

# model_type, fields of config.json; what is not there is as transformers has it.
MODELS: list[tuple[str, dict[str, Any]]] = [
    *((name, GROUPED) for name in ("llama", "mistral", "qwen2", "olmo2", "granite", "cohere")),
    *((name, GROUPED) for name in ("stablelm", "starcoder2")),
    *((name, GROUPED | PADDED) for name in ("smollm3", "phi3")),
    *((name, WIDE) for name in ("llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text", "stablelm", "seed_oss")),
    *((name, WIDE | PADDED) for name in ("glm4", "phi3")),
    *((name, SMALL) for name in ("llama", "olmo", "olmo3", "cohere2", "phi", "gpt_neox")),
    # Fields that files leave out because they are what transformers takes anyway.
    *((name, SMALL | {"num_attention_heads": 32}) for name in ("mistral", "qwen2", "qwen3", "gemma", "gemma2")),
    *((name, SMALL | {"num_attention_heads": 32}) for name in ("stablelm", "seed_oss", "starcoder2")),
    ("smollm3", SMALL | {"num_attention_heads": 32} | PADDED),
    ("glm4", SMALL | {"num_attention_heads": 32} | PADDED),
    ("gemma3_text", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}),
    ("gpt2", GPT),
    ("gpt2", GPT | {"n_inner": 80}),
    ("gptj", GPT | {"rotary_dim": 8}),
    ("gpt_bigcode", GPT),
    ("gpt_bigcode", GPT | {"multi_query": False}),
    ("gpt_neo", {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}),
    ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    ("falcon", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}),
    ("falcon", {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "multi_query": False}),
    (
        "falcon",
        {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2}
        | {"new_decoder_architecture": True, "ffn_hidden_size": 96},
    ),
    ("opt", {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"word_embed_proj_dim": 64}),
    ("opt", {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"word_embed_proj_dim": 32}),
    ("mixtral", GROUPED | {"num_local_experts": 4}),
    ("mixtral", SMALL | {"num_attention_heads": 32, "num_local_experts": 4}),
    ("qwen2_moe", GROUPED | {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}),
    (
        "qwen2_moe",
        GROUPED | {"num_hidden_layers": 4, "num_experts": 4, "moe_intermediate_size": 32}
        | {"shared_expert_intermediate_size": 48, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
    ),
    ("qwen3_moe", WIDE | {"num_experts": 4, "moe_intermediate_size": 32, "mlp_only_layers": [0]}),
    ("olmoe", SMALL | {"num_experts": 4}),
    ("gpt_oss", WIDE | {"num_local_experts": 4}),
]  # fmt: skip

COMPOSITES: list[tuple[str, dict[str, Any]]] = [
    ("gemma3", SMALL | {"model_type": "gemma3_text"}),
    ("mistral3", WIDE | {"model_type": "mistral"}),
    *((name, GROUPED) for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")),
    *((name, GROUPED | {"model_type": "llama"} | PADDED) for name in ("llava", "idefics3", "smolvlm")),
    ("llava_next", GROUPED | {"model_type": "mistral"}),
    *((name, GROUPED | {"model_type": "qwen2"}) for name in ("llava_onevision", "internvl")),
    ("paligemma", GROUPED | {"model_type": "gemma"}),
]


def estimated(folder: Path, config: dict[str, Any], *options: object) -> dict[str, Any]:
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    examples = () if "--examples" in options else ("--examples", 1000)
    return run("estimate", *examples, "--model-config", path, *options, "--json").json()


def layers(report: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(layer["name"], layer["inputs"], layer["outputs"]) for layer in report["layers"]]


def real_layers(model_type: str, fields: dict[str, Any], *, composite: bool = False) -> list[tuple[str, int, int]]:
    """What the recorder takes of the model that transformers makes of a configuration, without its weights."""
    torch = pytest.importorskip("torch", reason="NO PYTORCH: estimates of models stay UNTESTED; Tools/setup --torch")
    transformers = pytest.importorskip("transformers", reason="NO TRANSFORMERS: estimates of models stay UNTESTED")
    recorder = importlib.import_module("lorif.torch.command")
    layers = importlib.import_module("lorif.torch.layers")
    config = transformers.AutoConfig.for_model(model_type, **fields)
    automatic = transformers.AutoModelForImageTextToText if composite else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = automatic.from_config(config)
    chosen = layers.select_layers(model, recorder._all_but_the_head(model), None, bias=False)
    return [(layer.name, layer.inputs, layer.outputs) for layer in chosen]


@pytest.mark.parametrize(("model_type", "fields"), MODELS, ids=[f"{n}-{m[0]}" for n, m in enumerate(MODELS)])
def test_layers_are_those_that_the_recorder_takes(model_type: str, fields: dict[str, Any], tmp_path: Path) -> None:
    found = layers(estimated(tmp_path, {"model_type": model_type, **fields}))
    assert found == real_layers(model_type, fields)


@pytest.mark.parametrize(("model_type", "text"), COMPOSITES, ids=[name for name, _ in COMPOSITES])
def test_the_language_model_of_a_composite(model_type: str, text: dict[str, Any], tmp_path: Path) -> None:
    report = estimated(tmp_path, {"model_type": model_type, "text_config": text})
    named = [(name, *size) for name, *size in real_layers(model_type, {"text_config": text}, composite=True)
             if name.split(".")[1] in ("language_model", "text_model")]  # fmt: skip
    assert layers(report) == named
    assert "the language model alone" in report["notes"][0]


def test_every_type_that_is_named_is_tested(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"model_type": "unheard of"}')
    said = refused(
        "estimate", "--examples", 1, "--model-config", tmp_path / "c.json", says=("model_type", '"unheard of"')
    )
    named = set(said.stderr.split("are known (")[1].split(")")[0].split(", "))
    # The text parts of three composites are tested with them.
    tested = {name for name, _ in MODELS} | {name for name, _ in COMPOSITES}
    assert named - tested == {"qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"}
    assert tested <= named


def test_projection_and_selection(tmp_path: Path) -> None:
    config = {"model_type": "llama", **GROUPED, "hidden_size": 128, "intermediate_size": 40}
    report = estimated(tmp_path, config, "--layers", "*.mlp.*", "--rank", "*.down_proj=2,*=full")
    assert [(layer["d1"], layer["d2"], layer.get("rank")) for layer in report["layers"]] == 2 * [
        (64, 40, None), (64, 40, None), (40, 64, 2),
    ]  # fmt: skip
    whole = estimated(tmp_path, config, "--d1", 0, "--d2", 16)
    assert [(layer["d1"], layer["d2"]) for layer in whole["layers"][:2]] == [(128, 16), (128, 16)]
    assert estimated(tmp_path, config, "--d1", 8, "--d2", 8, "--rank", 100)["layers"][0]["rank"] == 8


def test_experts_are_spoken_of(tmp_path: Path) -> None:
    notes = estimated(tmp_path, {"model_type": "mixtral", **GROUPED, "num_local_experts": 7})["notes"]
    assert len(notes) == 1 and "7 experts in each of 2 blocks are not counted" in notes[0]


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"])
@pytest.mark.parametrize("value", [None, 0, -3, 1.5, "64", [64], 2**60])
def test_a_field_that_does_not_say(field: str, value: object, tmp_path: Path) -> None:
    config = {"model_type": "llama", **SMALL}
    del config[field]
    if value is not None:
        config[field] = value
    (tmp_path / "c.json").write_text(json.dumps(config))
    refused("estimate", "--examples", 1, "--model-config", tmp_path / "c.json", says=(f"field '{field}': expected",))


def test_fields_of_a_nested_object_are_named_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"model_type": "gemma3", "text_config": {"hidden_size": 64}}')
    refused(
        "estimate", "--examples", 1, "--model-config", tmp_path / "c.json",
        says=("field 'text_config.num_hidden_layers': expected",),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"model_type": 3}', "{}", '{"model_type": "llama"', "\x00", '{"a": ' * 200]
)
def test_what_is_no_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    refused("estimate", "--examples", 1, "--model-config", tmp_path / "c.json", says=(tmp_path / "c.json",))


def test_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"model_type": "llama", **SMALL}))
    config = ("--model-config", tmp_path / "c.json")
    described = ("--layers", 2, "--d1", 8, "--d2", 8)
    for options in (
        (), ("--layers", 2), ("--layers", "*.mlp.*", "--d1", 8, "--d2", 8), (*config, "--layers", 2),
        (*described, "--queries", 0), (*config, "--d1", -1), (*described, "--curvature-rank", 0),
    ):  # fmt: skip
        assert attempt("estimate", "--examples", 1, *options).code == USAGE, options
    refused("estimate", "--examples", 1, *config, "--layers", "*.mpl.*", says=("--layers '*.mpl.*' matches none",))
    refused("estimate", "--examples", 2**40, "--layers", 65536, "--d1", 64, "--d2", 64, says=("too many",))


@pytest.mark.parametrize("encoding", ["f32", "f16", "int8", "q4", "q1"])
def test_bytes_are_those_of_a_store(random: np.random.Generator, tmp_path: Path, encoding: str) -> None:
    count, sizes = 3000, ((24, 40), (64, 64), (7, 100))
    gradients = {
        f"l{place}": tuple(random.standard_normal((count, d, 2)).astype(np.float32) for d in pair)
        for place, pair in enumerate(sizes)
    }
    batch = write_batch(tmp_path / "b.safetensors", gradients, ids=[f"example-{row:08}" for row in range(count)])
    run("ingest", tmp_path / "s.lorif", batch, "--encoding", encoding)
    stored = sum(path.stat().st_size for path in (tmp_path / "s.lorif/segments").iterdir())
    # The same layers, told one by one: a model of three layers has no config.json, so each is estimated alone.
    parts = [
        run(
            *("estimate", "--examples", count, "--layers", 1, "--d1", d1, "--d2", d2, "--rank", 2, "--json"),
            *("--identifier-bytes", 16, "--encoding", encoding),
        ).json()
        for d1, d2 in sizes
    ]
    kept = [next(each for each in part["encodings"] if each["encoding"] == encoding) for part in parts]
    vectors = sum(each["factorBytesPerExample"] + each["normBytesPerExample"] for each in kept)
    # Ids once; they are compressed, which the estimate leaves out, and pages are padded.
    assert 0.99 * vectors < stored / count < 1.08 * (vectors + kept[0]["indexBytesPerExample"])


def test_times_and_memory_grow_with_the_work(tmp_path: Path) -> None:
    config = {"model_type": "llama", **GROUPED}

    def of(*options: object) -> dict[str, Any]:
        return estimated(tmp_path, config, "--rank", 1, *options)

    few, many = of("--examples", 10_000), of("--examples", 1_000_000)
    for small, large in zip(few["encodings"], many["encodings"], strict=True):
        assert 30 < large["scanSeconds"] / small["scanSeconds"] < 120
        assert 90 < large["storeBytes"] / small["storeBytes"] < 110
    assert many["fitSeconds"] > 5 * few["fitSeconds"]
    assert of("--queries", 64)["encodings"][4]["scanSeconds"] > few["encodings"][4]["scanSeconds"] / 100
    assert "fitSeconds" not in of("--memory", "1MiB")
    assert "memory at least" in run(
        *("estimate", "--examples", 1000, "--layers", 1, "--d1", 64, "--d2", 64, "--memory", "1MiB")
    ).stdout  # fmt: skip

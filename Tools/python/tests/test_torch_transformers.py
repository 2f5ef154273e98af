"""The routes of transformers: the command, the Trainer's callback, and its own GPT-2 against torch.func."""

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; the recorder stays UNTESTED: pip install '.[torch]'"
)
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; lorif.record stays UNTESTED: pip install '.[transformers]'"
)

import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from lorif.batch import FactorBatch  # noqa: E402
from lorif.record import main  # noqa: E402
from lorif.torch.recording import Recording  # noqa: E402
from lorif.torch.trainer import RecorderCallback  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from torch import Tensor  # noqa: E402
from torch_support import per_example_gradients, projected, token_losses  # noqa: E402

WORDS = ["in", "the", "beginning", "was", "a", "word", "and", "it", "was", "with", "many", "other", "words"]


def tiny_model() -> Any:
    torch.manual_seed(1)
    config = transformers.GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two blocks with random weights, its tokenizer, and texts of different lengths."""
    path = tmp_path_factory.mktemp("model")
    vocabulary = {word: number for number, word in enumerate(["?", *sorted(set(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(path)  # noqa: S106
    tiny_model().save_pretrained(path)
    lines = [{"id": f"t{row}", "text": " ".join(WORDS[row % 4 : 5 + row]), "source": "john"} for row in range(7)]
    (path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "queries.jsonl").write_text(json.dumps({"text": "the word was in the beginning"}) + "\n")
    return path


def check_against_func(batch: FactorBatch, recording: Recording, texts: list[str]) -> None:
    model = tiny_model().double().eval()
    vocabulary = {word: number for number, word in enumerate(["?", *sorted(set(WORDS))])}
    rows = [(torch.tensor([vocabulary[word] for word in text.split()]),) for text in texts]

    def loss(call: Any, row: Tensor) -> Tensor:
        return token_losses(call(row[None]).logits[0], row)

    gradients = per_example_gradients(model, loss, rows)
    for name, wanted in projected(recording, gradients, lambda _: True).items():
        found = batch.gradients(name)
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


def test_the_command_records_data_and_queries(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "factors"
    arguments = ["--model", str(folder), "--data", str(folder / "data.jsonl"), "--query", str(folder / "queries.jsonl")]
    options = ["--d", "6", "--rank", "6", "--batch-size", "3", "--out", str(out)]
    assert main([*arguments, *options]) == 0
    assert "7 examples" in capsys.readouterr().out
    train = FactorBatch(out / "factors-00000-000000.safetensors")
    query = FactorBatch(out / "queries" / "factors-00000-000000.safetensors")
    assert train.ids == [f"t{row}" for row in range(7)]
    assert query.ids == ["0"]
    assert [layer.name for layer in train.layers] == [layer.name for layer in query.layers]
    assert len(train.layers) == 8
    texts = [json.loads(line)["text"] for line in (folder / "data.jsonl").read_text().splitlines()]
    recording = Recording.load(out)
    check_against_func(train, recording, texts)
    check_against_func(query, recording, ["the word was in the beginning"])
    record = json.loads(train.path.with_suffix(".jsonl").read_text().splitlines()[2])
    assert record == {"id": "t2", "source": "john", "text": texts[2], "tokens": len(texts[2].split())}

    assert main([*arguments[:4], *options]) == 3
    assert "or resume=True" in capsys.readouterr().err
    assert main([*arguments[:4], *options, "--resume"]) == 0
    assert "0 examples" in capsys.readouterr().out


def test_the_command_whitens(folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(folder), "--data", str(folder / "data.jsonl"), "--out", str(tmp_path), "--sample", "5"]
    assert main([*arguments, "--projection", "whitened", "--energy", "0.8", "--d", "4", "--dtype", "bf16"]) == 0
    recording = Recording.load(tmp_path)
    assert recording.calibrated_on == 5
    assert all(layer.rank is not None for layer in recording.layers)
    assert len(recording.whitenings) == 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', "line 1: expected a string 'text', found int"),
        ('{"text": "word"}', "at least two tokens, found 1"),
        ("[1]", "expected a JSON object, found list"),
        ('{"text"', "line 1: expected a JSON object"),
    ],
)
def test_lines_that_are_no_examples(
    line: str, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    assert main(["--model", str(folder), "--data", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "out")]) == 3
    assert message in capsys.readouterr().err


def test_the_trainers_callback(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed; the Trainer's callback stays UNTESTED")
    generator = torch.Generator().manual_seed(2)
    data = []
    for row in range(6):
        tokens = torch.randint(0, 20, (8,), generator=generator).tolist()
        data.append({"input_ids": tokens, "labels": tokens, "id": f"r{row}"})
    model = tiny_model()
    options: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 3, "report_to": [], "use_cpu": True}
    arguments = transformers.TrainingArguments(str(tmp_path / "run"), save_strategy="no", disable_tqdm=True, **options)
    callback = RecorderCallback(data, tmp_path / "factors", layers="*.mlp.*", d=None, rank=8, projection="gaussian")

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {key: torch.tensor([row[key] for row in rows]) for key in ("input_ids", "labels")}

    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[callback], data_collator=collate)
    trainer.train()
    batch = FactorBatch(tmp_path / "factors" / "factors-00000-000000.safetensors")
    assert batch.ids == [f"r{row}" for row in range(6)]
    model = model.double().eval()
    rows = [(torch.tensor(item["input_ids"]),) for item in data]
    gradients = per_example_gradients(model, lambda call, row: token_losses(call(row[None]).logits[0], row), rows)
    for name, wanted in projected(Recording.load(tmp_path / "factors"), gradients, lambda _: True).items():
        assert np.abs(batch.gradients(name) - wanted).max() <= 1e-4 * np.abs(wanted).max()

"""A callback for the Trainer of transformers: records the training set with the weights that training ends with."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorif.torch.causal import Example, ExampleLoss, record_examples
from lorif.torch.recorder import Recorder

__all__ = ["RecorderCallback"]


class RecorderCallback(TrainerCallback):
    """Records a data set of token sequences at the end of training, in evaluation mode.

        record = RecorderCallback(data, "factors/", layers="*.mlp.*")
        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[record])

    `dataset` yields mappings with input_ids and perhaps labels and an id (else the row number); with several processes
    each records its share. `options` go to `Recorder`. A whitening or an energy target is found from the first `sample`
    examples.
    """

    def __init__(
        self,
        dataset: Iterable[Mapping[str, Any]],
        out: str | Path,
        *,
        id_field: str = "id",
        batch_size: int | None = None,
        loss: ExampleLoss = "token-sum",
        sample: int = 512,
        **options: Any,
    ) -> None:
        self._dataset = dataset
        self._out = out
        self._id_field = id_field
        self._batch_size = batch_size
        self._loss: ExampleLoss = loss
        self._sample = sample
        self._options = options

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer."""
        model = kwargs["model"]
        was_training = model.training
        model.eval()
        size = self._batch_size or args.per_device_train_batch_size
        process = (args.process_index, args.world_size)
        try:
            with Recorder(model, out=self._out, process=process, **self._options) as recorder:
                run: dict[str, Any] = {"batch_size": size, "loss": self._loss}
                if not recorder.recording.is_settled():
                    record_examples(recorder, model, self._examples(process, self._sample), calibrate=True, **run)
                record_examples(recorder, model, self._examples(process, None), **run)
        finally:
            model.train(was_training)

    def _examples(self, process: tuple[int, int], limit: int | None) -> Iterator[Example]:
        for row, item in enumerate(self._dataset):
            if limit is not None and row >= limit:
                return
            if row % process[1] == process[0]:
                tokens, labels = _integers(item["input_ids"]), item.get("labels")
                yield Example(str(item.get(self._id_field, row)), tokens, None if labels is None else _integers(labels))


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]

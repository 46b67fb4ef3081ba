"""SetFit's side of `sprat.benchmarks.accuracy_finetune`, for an interpreter that has it.

``python setfit_side.py ENCODER TRAIN TEST ITERATIONS`` fine-tunes on the rows of a JSON Lines file
and prints JSON: accuracy on the test rows, seconds of training, versions. It imports nothing of
sprat: SetFit may want other versions of transformers than sprat does.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path


def main(encoder: str, train: str, test: str, iterations: int) -> None:
    """Train as SetFit does by default: contrastive pairs, then a logistic regression."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, models
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    rows, others = _rows(train), _rows(test)
    words = models.Transformer(encoder, max_seq_length=128)
    body = SentenceTransformer(
        modules=[words, models.Pooling(words.get_word_embedding_dimension())], device="cpu"
    )
    model = SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000))
    arguments = TrainingArguments(
        batch_size=16, num_epochs=1, num_iterations=iterations, seed=0, report_to="none"
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(
            [{"text": row["text"], "label": row["label"]} for row in rows]
        ),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    found = model.predict([row["text"] for row in others], use_labels=False)
    right = sum(str(a) == row["label"] for a, row in zip(found, others, strict=True))
    packages = ("setfit", "sentence-transformers", "transformers", "torch")
    print(
        json.dumps(
            {
                "accuracy": right / len(others),
                "seconds": seconds,
                "versions": {name: importlib.metadata.version(name) for name in packages},
            }
        )
    )


def _rows(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))

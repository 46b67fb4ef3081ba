"""Every case once, with little work: what it measures here means nothing, that it runs does."""

from __future__ import annotations

from pathlib import Path

import pytest

from sprat.benchmarks import bundle as task
from sprat.benchmarks import harness, peers_build, report
from sprat.errors import SetupError
from sprat.store import Store

pytestmark = pytest.mark.timeout(400)

GOALS = {
    "serve": {"large_ratio", "small_ratio", "server_cpu_beyond", "alone_beyond"},
    "start": {"ready", "resident_idle", "resident_used"},
    "fairness": {"p99_ratio", "gap_beside"},
    "kernels": {
        *("wordpiece_batch", "wordpiece_single", "pool", "pool_memory", "embedding_bag", "viterbi"),
        *(
            f"{name}_{size}"
            for name in ("masked_argmax", "top_p", "log_softmax_numpy", "log_softmax_scipy")
            for size in (49_152, 151_936)
        ),
    },
    "quantization": {"agreement", "accuracy_drop"},
    "static": {"static", "static_rate"},
    "engines": set(),
    "sizing": set(),
    "accuracy": {"accuracy_all", "accuracy_ten", "ece_all", "ece_ten", "training_all"},
    "accuracy_finetune": {"accuracy_all", "accuracy_ten", "ece_all", "ece_ten"},
    "accuracy_moderation": {"f1_encoder", "f1_static"},
    "accuracy_distil": {"gap"},
    "cascade": {"cost_ratio", "loss", "exceeded"},
    "cascade_language": set(),
    "cascade_soak": {"lost", "wrong", "broken"},
    "cascade_overhead": {
        f"beyond_{size}_{percent}" for size in (1, 64, 1024) for percent in (0, 10, 100)
    },
    **{
        case: {
            f"{goal}_{weights}"
            for goal in (
                *("classify_rate", "classify_p50", "classify_3_tasks_rate"),
                *("answers_tokens", "answers_first", "engine_prompt", "engine_answer"),
                *("decide_rate", "extract_rate", "rewrite_tokens", "write_tokens"),
            )
        }
        for case, weights in (("peers", "q8_0"), ("peers_q4_0", "q4_0"))
    },
}


@pytest.mark.parametrize("name", harness.CASES)
def test_cases_leave_a_result_that_can_be_reported(
    name: str,
    store: Store,
    minilm_static: str,
    smollm: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPRAT_HOME", str(store.root))
    if name.startswith("peers"):
        try:
            peers_build.find(store)
        except SetupError as error:
            pytest.skip(error.message)
    # The session's bundle is trained by the same command.
    monkeypatch.setattr(task, "train", lambda store, folder: str(bundle))
    said: list[str] = []
    result = harness.run_here(harness.find(name), tmp_path, quick=True, say=said.append)
    assert result == harness.read(tmp_path / f"{name}.json")
    assert {each.name for each in result.figures if each.met is not None} == GOALS[name]
    differences = ("beyond", "drop", "gap", "loss", "exceeded", "lost", "wrong", "broken", "fail")
    assert all(
        each.value > 0 for each in result.figures if not any(d in each.name for d in differences)
    )
    assert len(report.render(result).splitlines()) >= 5
    assert said


def test_cases_task_is_trained_by_the_command(store: Store, minilm: Path, tmp_path: Path) -> None:
    path = task.train(store, tmp_path)
    manifest, _ = store.bundle(path, check=True)
    assert (manifest.name, manifest.tiers[-1].base.name) == (task.TASK, task.ENCODER)


def test_cases_task_that_cannot_be_trained_says_why(
    store: Store, minilm: Path, tmp_path: Path
) -> None:
    (tmp_path / task.TASK).write_text("in the way")
    with pytest.raises(SetupError, match="the benchmark's task cannot be trained: error: "):
        task.train(store, tmp_path)

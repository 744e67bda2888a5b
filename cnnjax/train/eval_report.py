"""What a run gets wrong on its held-out set: confusion matrix, a table of the classes, the worst examples."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.examples import Datasets
from cnnjax.data.loader import EvalBatches, Shard
from cnnjax.train.eval_figures import draw_confusion, draw_worst, draw_worst_masks
from cnnjax.train.evaluation import Evaluation
from cnnjax.train.html_page import as_text, write_html
from cnnjax.train.metrics import crop_labels
from cnnjax.train.predict import class_name, compile_with
from cnnjax.train.run_folder import Record, not_written
from cnnjax.train.state import TrainState
from cnnjax.train.step import normalize, predict
from cnnjax.train.task import Task

WORST = 24
"""So many examples are shown."""
MOST_CLASSES = 30
"""A matrix of more is a picture of dots; the commonest confusions are listed all the same."""
Answer = Callable[[Mapping[str, Any]], tuple[jax.Array, ...]]
"""A batch with `image` and `label` to labels, likeliest classes, probabilities and losses."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of the held-out examples that can be read."""

    confusion: np.ndarray
    """(classes, classes): of how many examples, or pixels, of a row's class it says a column's.

    More classes than the data has, up to the last that was found, of a network with more outputs.
    """
    numbers: np.ndarray
    """(N,) the examples' places in the held-out set."""
    labels: np.ndarray
    """(N,) int; of a segmentation (N, 0)."""
    found: np.ndarray
    """(N,) int, the likeliest classes; of a segmentation (N, 0)."""
    probabilities: np.ndarray
    """(N,) of the likeliest class; of a segmentation the mean over the pixels."""
    losses: np.ndarray
    """(N,) minus the logarithm of the true class's probability; of a segmentation the mean over the pixels."""


def write_eval_report(run_dir: str | Path, folder: Path, *, checkpoint: str | int = "last") -> Record:
    """Writes README.md, index.html, confusion.png, worst.png, predictions.csv and results.json into `folder`.

    Args:
        checkpoint: "last", "best" or a step.

    Returns:
        What `evaluate` returns.

    Raises:
        RunError: the run cannot be read, or the folder not be written.
        DataError: the data cannot be read.
    """
    opened = Evaluation.open(run_dir, checkpoint)
    task, data, result = opened.task, opened.data, opened.evaluate()
    if opened.executor.process_index:  # one of a job's processes writes
        return result
    answer = _make_answer(task, opened.state)
    answers = collect_answers(answer, task, data)
    worst = np.argsort(-answers.losses, kind="stable")[:WORST]
    names = [class_name(task.facts.class_names, index) for index in range(len(answers.confusion))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if len(names) <= MOST_CLASSES:
            draw_confusion(answers.confusion, names, folder / "confusion.png")
        shown = data.test.read(answers.numbers[worst])
        if task.facts.segmentation:
            labels, found, *_ = map(np.asarray, answer({"image": shown.images, "label": shown.labels}))
            draw_worst_masks(shown.images, labels, found, answers.losses[worst], names, folder / "worst.png")
        else:
            draw_worst(shown.images, [_caption(answers, index, names) for index in worst], folder / "worst.png")
            _write_predictions(folder / "predictions.csv", answers, names)
        raw = {
            **result,
            "run_dir": opened.run_dir.name,
            "classes": names,
            "confusion": answers.confusion.tolist(),
        }
        (folder / "results.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        text = "\n".join(_page(task.config.name, raw, task.facts.segmentation))
        (folder / "README.md").write_text(text, encoding="utf-8")
        write_html(text, task.config.name, folder, folder / "index.html")
    except OSError as error:
        raise not_written(folder, error, "--report") from None
    return result


def collect_answers(answer: Answer, task: Task, data: Datasets) -> Answers:
    """What a network says of each held-out example that can be read."""
    classes, size = task.network.num_classes, task.config.eval.batch_size
    batches = EvalBatches(data.test, batch_size=size, shard=Shard())
    confusion = np.zeros((classes, classes), np.int64)
    kept = []
    for index in range(len(batches)):
        batch = batches[index]
        good = np.flatnonzero(batch["mask"] > 0)
        labels, found, probabilities, losses = (np.asarray(each)[good] for each in answer(batch))
        pairs = labels.ravel().astype(np.int64) * classes + found.ravel()
        confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        if task.facts.segmentation:
            labels, found = np.zeros((2, len(good), 0), int)
        kept.append((index * size + good, labels, found, probabilities, losses))
    shown = max(len(task.facts.class_names), 1 + int(np.flatnonzero(confusion.any(0))[-1]))
    return Answers(confusion[:shown, :shown], *(np.concatenate(each) for each in zip(*kept, strict=True)))


def _make_answer(task: Task, state: TrainState) -> Answer:
    """Of the weights' moving average, where there is one."""
    mean, std = task.config.data.mean, task.config.data.std
    network, options = task.network.on(jax.default_backend())
    weights = state.ema or {"params": state.params, "batch_stats": state.batch_stats}

    def answer(weights: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        images = normalize(batch["image"], mean, std)
        logits = predict(network, weights["params"], weights["batch_stats"], images).logits
        labels = batch["label"] if logits.ndim == 2 else crop_labels(batch["label"], logits.shape[1:3])
        log_probabilities = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
        pixels = tuple(range(1, losses.ndim))
        return labels, logits.argmax(-1), jnp.exp(log_probabilities.max(-1)).mean(pixels), losses.mean(pixels)

    return compile_with(weights, answer, options)


def class_table(confusion: np.ndarray) -> list[Record]:
    """For each class: how many there are, how many were found, precision, recall, F1, intersection over union.

    A share of nothing is None.
    """
    rows = []
    for index in range(len(confusion)):
        right, true, found = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
        shares = {
            "precision": (right, found),
            "recall": (right, true),
            "f1": (2 * right, true + found),
            "iou": (right, true + found - right),
        }
        rows.append(
            {"examples": int(true), "found": int(found)}
            | {name: float(part / whole) if whole else None for name, (part, whole) in shares.items()}
        )
    return rows


def frequent_confusions(confusion: np.ndarray, most: int = 12) -> list[tuple[int, int, int]]:
    """(true class, class found, how often) of the commonest mistakes, the commonest first."""
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = [(int(flat) // len(mistakes), int(flat) % len(mistakes)) for flat in order]
    return [(true, found, int(mistakes[true, found])) for true, found in pairs if mistakes[true, found]]


def _page(name: str, result: Record, segmentation: bool) -> list[str]:
    names, confusion = [as_text(each) for each in result["classes"]], np.array(result["confusion"])
    what = "pixels" if segmentation else "examples"
    lines = [f"# {as_text(name)} on its held-out set", "", _headline(result), ""]
    last = ("intersection over union", "iou") if segmentation else ("F1", "f1")
    lines += [
        "## Classes",
        "",
        f"| class | {what} | found | precision | recall | {last[0]} |",
        "| --- |" + " --- |" * 5,
    ]
    for label, row in zip(names, class_table(confusion), strict=True):
        shares = ("" if row[key] is None else f"{row[key]:.1%}" for key in ("precision", "recall", last[1]))
        lines.append(f"| {label} | {row['examples']:,} | {row['found']:,} | {' | '.join(shares)} |")
    lines += ["", "Precision: how many of those found are right. Recall: how many of those there are were found.", ""]
    if len(names) <= MOST_CLASSES:
        lines += ["## Confusion", "", "![of each class, what it was taken for](confusion.png)", ""]
    frequent = frequent_confusions(confusion)
    if frequent:
        lines += [f"| {what} of | taken for | how many |", "| --- | --- | --- |"]
        lines += [f"| {names[true]} | {names[found]} | {count:,} |" for true, found, count in frequent]
    lines += ["", "## The worst", "", "Those whose true class was given the least probability, the worst first.", ""]
    lines += ["![the examples with the largest loss](worst.png)", ""]
    files = "[results.json](results.json)" + ("" if segmentation else ", [predictions.csv](predictions.csv)")
    return [*lines, f"Raw numbers: {files}. Weights of step {result['step']}.", ""]


def _headline(result: Record) -> str:
    if "mean_iou" in result:
        return (
            f"Mean intersection over union **{result['mean_iou']:.2%}**, {result['accuracy']:.2%} of the pixels right."
        )
    low, high = result["accuracy_interval"]
    return (
        f"**{result['accuracy']:.2%}** of {result['examples']:,} right (95 % interval {low:.2%} to {high:.2%}), "
        f"loss {result['loss']:.4f}."
    )


def _caption(answers: Answers, index: int, names: Sequence[str]) -> str:
    true, found = names[answers.labels[index]], names[answers.found[index]]
    return f"{true}\nfound {found} {answers.probabilities[index]:.0%}"


def _write_predictions(path: Path, answers: Answers, names: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["example", "label", "found", "probability", "loss"])
        for number, label, found, probability, loss in zip(
            answers.numbers, answers.labels, answers.found, answers.probabilities, answers.losses, strict=True
        ):
            writer.writerow([number, names[label], names[found], f"{probability:.6f}", f"{loss:.6f}"])

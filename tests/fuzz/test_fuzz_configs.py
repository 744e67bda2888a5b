"""Configs, overrides and studies that are damaged in any way are refused in a sentence, or mean what they say."""

import json
import random
from pathlib import Path

import pytest
from campaign import QUICK, THOROUGH, refused, run
from mutations import SNIPPETS, VALUES, mutate_text, mutate_tree, mutate_word

from cnnjax.config import Config
from cnnjax.config_files import config_hash, diff, flatten, load_config, parse_yaml, to_tree, to_yaml
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxError
from cnnjax.study.arithmetic import compute
from cnnjax.study.arms import read_study
from cnnjax.train.run_folder import default_run_dir
from cnnjax.train.task import DataFacts, make_task

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINED = sorted((CONFIGS / "train").glob("*.yaml"))
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
WHOLE = to_tree(Config())
PATHS = [path for path, _ in flatten(WHOLE)] + ["model.args.width", "optimizer.args.momentum", "schedule.boundaries"]
# More is made in no time that a test has.
_MOST_PIXELS = 1 << 24


@pytest.mark.parametrize("total", [QUICK, pytest.param(THOROUGH, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_mutated_configs(total, tmp_path):
    for file in (CONFIGS / "studies" / "shared").glob("*.yaml"):
        (tmp_path / "studies" / "shared").mkdir(parents=True, exist_ok=True)
        (tmp_path / "studies" / "shared" / file.name).write_bytes(file.read_bytes())

    def mutation(random: random.Random) -> str:
        kind = random.choice((_config, _config, _overrides, _study))
        return f"{kind.__name__.strip('_')} {kind(random, tmp_path / 'studies')}"

    run("configs", total, mutation)


def _config(random: random.Random, folder: Path) -> str:
    path = folder / "run.yaml"
    path.write_bytes(_mutated(random, random.choice(TRAINED)))
    return _judged(random, path, ())


def _overrides(random: random.Random, folder: Path) -> str:
    words = []
    for _ in range(random.choice((1, 1, 2, 4))):
        path = random.choice(PATHS)
        if random.random() < 0.2:
            path = mutate_word(random, path)
        given = random.choice((random.choice(SNIPPETS), _as_json(random.choice(VALUES))))
        words.append(f"{path}{'' if random.random() < 0.02 else '='}{given}")
    return _judged(random, random.choice((None, *TRAINED)), words)


def _study(random: random.Random, folder: Path) -> str:
    file = random.choice(STUDIES)
    path = folder / file.name
    if file.stem == "arithmetic":  # a computation takes a while
        tree = parse_yaml(file.read_text(encoding="utf-8"), "")
        chosen = random.sample(tree["computations"], 2)
        path.write_text(_as_json(mutate_tree(random, {**tree, "computations": chosen})), encoding="utf-8")
    else:
        path.write_bytes(_mutated(random, file))
    try:
        study, arms = read_study(path)
    except CnnjaxError as error:
        return refused(error)
    again = [(arm.name, config_hash(arm.config)) for arm in read_study(path)[1]]
    assert again == [(arm.name, config_hash(arm.config)) for arm in arms]
    for arm in arms[:3]:
        _round_trip(arm.config, folder)
    if study.computations:
        try:
            compute(study)
        except CnnjaxError as error:
            return refused(error)
    return "accepted"


def _mutated(random: random.Random, file: Path) -> bytes:
    text = file.read_text(encoding="utf-8")
    if random.random() < 0.5:
        return mutate_text(random, text)
    return _as_json(mutate_tree(random, parse_yaml(text, ""))).encode()


def _as_json(value: object) -> str:
    """YAML, nearly: what is no finite number there is text."""
    return json.dumps(value, ensure_ascii=False)


def _judged(random: random.Random, path: Path | None, overrides: list[str] | tuple[str, ...]) -> str:
    try:
        config = load_config(path, overrides)
        default_run_dir(config)
    except CnnjaxError as error:
        return refused(error)
    _round_trip(config, Path(path).parent if path is not None and path.name == "run.yaml" else None)
    try:
        segmentation = config.model.name.startswith("unet")
        facts = DataFacts(tuple("0123456789"), (32, 32, 1), 1437, 360, segmentation)
        cheap = config.model.name.startswith("lenet") or not (config.train.freeze or config.train.phases)
        if cheap or random.random() < 0.1:
            task = make_task(config, facts)
            assert task.total_steps >= 1
            assert task.learning_rate(1) >= 0
        if _pixels(config) < _MOST_PIXELS:
            data = load(config.data)
            assert min(len(data.train), len(data.test)) > 0
    except CnnjaxError as error:
        return f"loaded, {refused(error)}"
    return "accepted"


def _pixels(config: Config) -> int:
    """About so many are made of a source."""
    source = config.data.source
    size = config.data.image_size or 0
    counts = [getattr(source, name, 900) for name in ("train_examples", "test_examples")]
    own = getattr(source, "image_size", 8)
    channels = getattr(source, "channels", 1)
    return (
        (sum(counts) + getattr(source, "classes", 10)) * channels * max(size, own, config.data.shorter_side or 0) ** 2
    )


def _round_trip(config: Config, folder: Path | None) -> None:
    text = to_yaml(config)
    if folder is None:
        again = Config.model_validate_json(json.dumps(parse_yaml(text, "")), strict=True)
    else:
        (folder / "again.yaml").write_text(text, encoding="utf-8")
        again = load_config(folder / "again.yaml")
    assert again == config, diff(config, again)
    assert config_hash(again) == config_hash(config)

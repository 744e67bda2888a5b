"""One training that is preempted many times, at random moments, ends bit for bit like one that never was.

Ten times by default; `CNNJAX_SOAK=200 pytest tests/e2e/test_soak.py -m slow -n 0 -s` for two hundred (twenty minutes of
two cores), with a table of what was interrupted when. `CNNJAX_SOAK_SEED` draws the same signals and moments again, as
far as a machine's timing can be drawn.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from interruptions import assert_bit_for_bit, finish, last_record, last_step, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("CNNJAX_SOAK", "10"))
STEPS = max(120, 6 * KILLS)
# At every evaluation a line of the training metrics comes first, by which one that is under way is known.
OVERRIDES = (f"train.duration.steps={STEPS}", "log.every.steps=5", "eval.every.steps=20", "checkpoint.every.steps=7")

# Of a start, in their order, and for how many seconds after its beginning a signal may come.
MOMENTS = {
    "starting": 2.5,  # before the run folder is held
    "restoring": 0.4,
    "compiling": 0.6,
    "training": 0.05,
    "evaluating": 0.1,
    "saving": 0.03,
}
BEFORE_THE_FIRST_STEP = ("starting", "restoring", "compiling")
# SIGTERM saves, once training has begun; SIGKILL does not; a scheduler sends the one and a while later the other.
KINDS = ("SIGTERM", "SIGKILL", "SIGTERM, then SIGKILL")


def moment_of(process: subprocess.Popen, run_dir: Path, output: Path) -> str:
    """What a process is doing, as far as it can be seen from outside."""
    said = output.read_text()
    if "compiled the step" in said:
        record = last_record(run_dir)
        if any("tmp" in path.name for path in (run_dir / "checkpoints").glob("*")):
            return "saving"
        if record.get("kind") == "train" and record["step"] % 20 == 0:
            return "evaluating"
        return "training"
    if " at step " in said or "starting again" in said:
        return "compiling"
    lock = run_dir / ".cnnjax.lock"
    return "restoring" if lock.exists() and f"process {process.pid} " in lock.read_text() else "starting"


def preempt(process: subprocess.Popen, run_dir: Path, output: Path, *, kind: str, moment: str, at_step: int) -> str:
    """Sends a signal at a moment, in training once a step is reached; returns what the process was doing by then."""
    early = moment in BEFORE_THE_FIRST_STEP
    while process.poll() is None:
        now = moment_of(process, run_dir, output)
        passed = early and list(MOMENTS).index(now) > list(MOMENTS).index(moment)
        if passed or (now == moment and (early or last_step(run_dir) >= at_step)):
            break
        time.sleep(0.001)
    time.sleep(random.random() * MOMENTS[moment])
    now = moment_of(process, run_dir, output)
    process.send_signal(signal.SIGKILL if kind == "SIGKILL" else signal.SIGTERM)
    if kind == "SIGTERM, then SIGKILL":
        time.sleep(random.random() * 0.3)
        process.kill()
    process.wait(timeout=300)
    return now


def test_preempted_at_random_moments_changes_nothing(tmp_path):
    seed = int(os.environ.get("CNNJAX_SOAK_SEED", int.from_bytes(os.urandom(4))))
    print(f"{KILLS} preemptions drawn with CNNJAX_SOAK_SEED={seed}")
    random.seed(seed)
    config, cache, run_dir, output = (tmp_path / name for name in ("small.yaml", "compiled", "run", "output"))
    config.write_text("{}\n")
    finish(start(config, tmp_path / "uninterrupted", cache, *OVERRIDES))
    stopped: Counter[tuple[str, str]] = Counter()
    saved = 0
    for number in range(KILLS):
        kind = random.choice(KINDS)
        # Never to the end while preemptions are left: who is ahead of an even pace is stopped before the first step.
        ahead = last_step(run_dir) >= STEPS * (number + 1) / (KILLS + 1)
        moment = random.choice(BEFORE_THE_FIRST_STEP if ahead else tuple(MOMENTS))
        at_step = last_step(run_dir) + random.randint(-6, 2 * STEPS // KILLS)
        with open(output, "w") as file:
            process = start(config, run_dir, cache, *OVERRIDES, output=file)
        doing = preempt(process, run_dir, output, kind=kind, moment=moment, at_step=min(at_step, STEPS - 30))
        said = output.read_text()
        assert "Traceback" not in said, said
        assert process.returncode in (0, -signal.SIGTERM, -signal.SIGKILL), said
        if process.returncode == 0:
            assert "stopped and saved at step" in said, f"the run ended before preemption {number}: {said}"
            saved += 1
        stopped[doing, kind] += 1
    finish(start(config, run_dir, cache, *OVERRIDES))
    for doing in MOMENTS:
        print(f"{doing}: " + ", ".join(f"{stopped[doing, kind]} by {kind}" for kind in KINDS))
    print(f"{saved} of {sum(stopped.values())} saved and ended by themselves")
    assert_bit_for_bit(run_dir, tmp_path / "uninterrupted", STEPS)

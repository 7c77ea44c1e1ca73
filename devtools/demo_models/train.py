"""Trains the demo checkpoints: `python -m devtools.demo_models.train STAGE`, in the order of `make demo-models`.

Two stages, because a decoder finds no use for an audio tower that knows nothing yet: the tower learns words and
their edges frame by frame, then the whole model learns its task from recordings that grow longer as it gets better.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from qwen_asr.core.transformers_backend import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from torch import nn

from devtools.demo_models import lessons
from devtools.demo_models.checkpoint import Kind, make_model, make_processor, prepare_for_training, save
from devtools.demo_models.examples import aligner_example, asr_example
from devtools.demo_models.lessons import encode, frame_head, frame_loss
from devtools.demo_models.silence import Silences, in_silence
from devtools.demo_models.speech import ClipBank, Recording, compose, compose_silence

BUILD = Path("build/demo_models")
TOWER = BUILD / "tower.pt"

# Two cosine cycles, (steps, seconds of audio a step): the second, with many small steps, does most of the work
TOWER_CYCLES = ((800, 240.0), (2400, 120.0))


NO_SILENCES = Silences(share=0.0, long=0.0)


@dataclass(frozen=True)
class Training:
    """`steps` steps of a cosine over `schedule` steps, on recordings of up to `longest_s`."""

    kind: Kind
    start: str  # the tower, or a checkpoint that an earlier training saved
    steps: int
    schedule: int
    rate: float
    longest_s: float
    seed: int = 7
    initial_share: float = 0.0  # of the initial weights in the weights that it saves
    silences: Silences = NO_SILENCES  # digital, around and between words
    head_steps: int = 0  # of fitting a new frame head before; 0: the head of the tower's training


# The recogniser learns all lengths first, then the default chunk's length well, and once more. The average of the last
# two ends errs less than either (new takes of trained voices: 1.21 % and 1.05 % of words wrong, their average 0.81 %).
TRAININGS = {
    "asr": Training("asr", "tower", steps=1200, schedule=2200, rate=1.5e-3, longest_s=30.5),
    "asr-again": Training("asr", "asr", steps=1600, schedule=1600, rate=1e-3, longest_s=16.5),
    "asr-polish": Training("asr", "asr", steps=800, schedule=800, rate=6e-4, longest_s=16.5, seed=8, initial_share=0.3),
    "asr-silence": Training(
        "asr", "asr", steps=1400, schedule=1400, rate=6e-4, longest_s=16.5, seed=9,
        silences=Silences(share=0.6, long=0.2), head_steps=100,
    ),
    "asr-silence-long": Training(
        "asr", "asr", steps=700, schedule=700, rate=5e-4, longest_s=16.5, seed=11,
        silences=Silences(share=0.7, long=0.5), head_steps=100,
    ),
    "asr-silence-polish": Training(
        "asr", "asr", steps=600, schedule=600, rate=6e-4, longest_s=16.5, seed=12, initial_share=0.9,
        silences=Silences(share=0.8, long=0.6), head_steps=100,
    ),
    "aligner": Training("aligner", "tower", steps=2200, schedule=2200, rate=1.5e-3, longest_s=30.5),
    "aligner-silence": Training(
        "aligner", "aligner", steps=1000, schedule=1000, rate=8e-4, longest_s=30.5, seed=10,
        silences=Silences(share=0.6, long=0.35), head_steps=100,
    ),
}  # fmt: skip


def draw(
    rng: np.random.Generator,
    bank: ClipBank,
    longest: float,
    *,
    silent: float,
    budget_s: float,
    silences: Silences = NO_SILENCES,
) -> list[Recording]:
    """A batch of like-long recordings, `budget_s` seconds in all; a share `silent` of them without speech."""
    seconds = rng.uniform(0.8 * longest, longest) if rng.random() < 0.35 else rng.uniform(0.8, longest)

    def one() -> Recording:
        has_silence = silences.share > 0 and rng.random() < silences.share
        sound_s = seconds * rng.uniform(0.1, 0.9) if has_silence else seconds
        if rng.random() < silent:
            recording = compose_silence(rng, seconds=min(rng.uniform(0.2, 1.0) * sound_s, 15))
        else:
            recording = compose(rng, bank, seconds=sound_s * rng.uniform(0.85, 1.0))
        return in_silence(rng, recording, seconds, long=silences.long) if has_silence else recording

    return [one() for _ in range(int(np.clip(round(budget_s / seconds), 4, 48)))]


def optimizer(groups: Iterable[tuple[Iterable[nn.Parameter], float]], steps: int) -> Callable[[torch.Tensor], None]:
    """A step of AdamW with warm-up and cosine decay, gradients clipped at 1. `groups`: parameters, learning rate."""
    adamw = torch.optim.AdamW([{"params": p, "lr": r} for p, r in groups], betas=(0.9, 0.98), weight_decay=0.01)
    parameters = [parameter for group in adamw.param_groups for parameter in group["params"]]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw,
        lambda step: min(1.0, (step + 1) / 60) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1, step / steps))) / 2),
    )

    def step(loss: torch.Tensor) -> None:
        adamw.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
        schedule.step()

    return step


def train_tower(bank: ClipBank, seed: int = 7, cycles: tuple[tuple[int, float], ...] = TOWER_CYCLES) -> None:
    torch.manual_seed(seed)
    processor = make_processor()
    model = make_model("asr", processor.tokenizer)
    tower, head = model.thinker.audio_tower, frame_head()
    began = time.monotonic()
    for cycle, (steps, budget_s) in enumerate(cycles):
        rng = np.random.default_rng([seed, cycle])
        optimize = optimizer([([*tower.parameters(), *head.parameters()], 2e-3)], steps)
        for step in range(steps):
            batch = draw(rng, bank, 16.0, silent=0.04, budget_s=budget_s)
            loss, right = frame_loss(head, encode(model, processor, batch), batch)
            optimize(loss)
            if step % 25 == 0 or step == steps - 1:
                spent = time.monotonic() - began
                print(f"tower {cycle}.{step} loss {loss.item():.3f} frames {right:.3f} {spent:.0f}s", flush=True)
                torch.save({"tower": tower.state_dict(), "head": head.state_dict()}, TOWER)


def initial_model(training: Training, processor: Qwen3ASRProcessor) -> Qwen3ASRForConditionalGeneration:
    if training.start != "tower":
        return prepare_for_training(
            Qwen3ASRForConditionalGeneration.from_pretrained(BUILD / training.start, dtype="float32")
        )
    model = make_model(training.kind, processor.tokenizer)
    model.thinker.audio_tower.load_state_dict(torch.load(TOWER)["tower"])
    lessons.init_for_counting(model)
    if training.kind == "aligner":
        lessons.init_time_head(model.thinker.lm_head)
    return model


def initial_head(
    training: Training, model: Qwen3ASRForConditionalGeneration, processor: Qwen3ASRProcessor, bank: ClipBank
) -> nn.Linear:
    """The frame head: the tower training's, or a new one, fitted while the tower stays as it is."""
    head = frame_head()
    if not training.head_steps:
        head.load_state_dict(torch.load(TOWER)["head"])
        return head
    rng = np.random.default_rng([training.seed, 1])
    optimize = optimizer([(head.parameters(), 1e-2)], training.head_steps)
    for step in range(training.head_steps):
        batch = draw(rng, bank, training.longest_s, silent=0.08, budget_s=80, silences=training.silences)
        with torch.no_grad():
            clips = encode(model, processor, batch)
        loss, right = frame_loss(head, clips, batch)
        optimize(loss)
        if step % 25 == 0 or step == training.head_steps - 1:
            print(f"head {step} loss {loss.item():.3f} frames {right:.3f}", flush=True)
    return head


def train(training: Training, bank: ClipBank) -> None:
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    processor = make_processor()
    kind, steps, rate = training.kind, training.steps, training.rate
    model = initial_model(training, processor)
    initial = [parameter.detach().clone() for parameter in model.parameters()]
    head = initial_head(training, model, processor, bank)
    make_example = asr_example if kind == "asr" else aligner_example
    task_loss = lessons.asr_loss if kind == "asr" else lessons.aligner_loss
    silent, enough = (0.08, 0.93) if kind == "asr" else (0.0, 0.7)
    text = lessons.TextModel(model)
    times_head = lessons.time_head()
    tower = list(model.thinker.audio_tower.parameters())
    rest = [p for p in model.parameters() if p not in set(tower)]
    groups = [([*tower, *head.parameters()], rate / 3), ([*rest, *times_head.parameters()], rate)]
    optimize = optimizer(groups, training.schedule)
    longest, running, began = 2.0, 0.0, time.monotonic()
    for step in range(steps):
        batch = draw(rng, bank, longest, silent=silent, budget_s=160, silences=training.silences)
        examples = [make_example(rng, processor, r) for r in batch]
        clips = encode(model, processor, batch)
        loss, right = task_loss(text.logits(clips, examples), examples, batch)
        frames, _ = frame_loss(head, clips, batch)  # so that the tower does not forget words and edges
        times = lessons.times_loss(text, times_head, kind, examples)
        attention = lessons.attention_loss(text, examples)
        optimize(loss + 0.3 * frames + 0.5 * times + attention)
        running = 0.95 * running + 0.05 * right
        # longer as it gets better, and by six tenths of the schedule in any case
        if running > enough or longest < training.longest_s * min(1, step / (0.6 * training.schedule)):
            longest = min(training.longest_s, longest * 1.02 + 0.02)
        if step % 25 == 0 or step == steps - 1:
            named = {"loss": loss, "times": times, "frames": frames, "attention": attention}
            shown = " ".join(f"{name} {value.item():.3f}" for name, value in named.items())
            spent = time.monotonic() - began
            print(f"{kind} {step} {shown} right {running:.3f} ≤ {longest:.1f}s {spent:.0f}s", flush=True)
        if step % 200 == 199:
            save(BUILD / kind, kind, model, processor)
    with torch.no_grad():
        for parameter, before in zip(model.parameters(), initial, strict=True):
            parameter.lerp_(before, training.initial_share)
    save(BUILD / kind, kind, model, processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["tower", *TRAININGS])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    BUILD.mkdir(parents=True, exist_ok=True)
    bank = ClipBank.recorded("train")
    if arguments.stage == "tower":
        train_tower(bank)
    else:
        train(TRAININGS[arguments.stage], bank)


if __name__ == "__main__":
    main()

"""Pre-trains the tiny policy: python -m awares.mini.pretrain --out awares/mini/policy_weights

    stage      lesson                                              conversations
    glyphs     The vision tower classifies the items of a view.    low views, crops, full views
    words      The language model finds items in frozen features.  descriptions of scenes
    questions  The language model finds the item of a question.    questions about one item
    answers    The whole model answers from its view.              all views, all kinds
    guesses    The model guesses digits that it cannot see.        as before, and illegible digits
    sums       The model adds and compares digits.                 as before, with more sums
    practice   The model sees crops after any kind of question.    as before, fewer illegible digits
    requests   The model ignores the request before the crops.     as before, and requests
    commands   The model writes a request on command.              as before, and commands

Fine-tuning then teaches the model when to request crops, and which crops. Every batch depends only
on (seed, stage, step). An interrupted run therefore resumes from its last checkpoint with the same
result. Training uses training scans only. Every printed accuracy is measured on test scans.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from awares.chat import ChatFormat
from awares.mini.card import write_card
from awares.mini.conversation import Lesson, LessonForm
from awares.mini.glyphs import GlyphReader, glyph_batch
from awares.mini.lessons import answer_loss, talk_batch
from awares.mini.measure import Exam, examine
from awares.mini.policy import build_model, save_policy
from awares.mini.questions import KINDS, Kind
from awares.mini.tokenizer import SYSTEM_PROMPT, train_tokenizer
from awares.seeds import derive

EXAM = 4000
"""Number of held-out questions in the final measurement."""

MUON_RATE = 8.0
"""Muon's learning rate, divided by AdamW's. Muon trains the language model's matrices."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of pre-training."""

    name: str
    steps: int
    learning_rate: float
    vision: float
    """The vision tower's learning rate, divided by `learning_rate`.

    The rate is 0 in the stages "words" and "questions", because the gradients of the untrained
    language model would damage the tower.
    """
    forms: dict[LessonForm, int]
    """The count of each form of conversation in a batch. Empty for the stage "glyphs"."""
    lesson: Lesson


ONE_ITEM: tuple[Kind, ...] = ("color", "color", "shape", "place", "place", "digit at", "digit on")
TWO_ITEMS: tuple[Kind, ...] = (*KINDS, "sum", "sum", "sum", "larger")
MIXED: dict[LessonForm, int] = {"full": 28, "low": 44, "crop": 8, "closer": 28}
PRACTICE: dict[LessonForm, int] = {"full": 30, "low": 40, "crop": 8, "closer": 30}
REQUESTS: dict[LessonForm, int] = {"full": 20, "low": 34, "crop": 4, "closer": 50}
COMMANDS: dict[LessonForm, int] = {"full": 16, "low": 30, "closer": 42, "command": 20}
STAGES = (
    Stage("glyphs", 2000, 2e-3, 1.0, {}, Lesson(0, 0)),
    Stage("words", 350, 3e-3, 0.0, {"full": 10, "low": 34}, Lesson(1, 16)),
    Stage(
        "questions",
        500,
        3e-3,
        0.0,
        {"full": 20, "low": 60, "closer": 12},
        Lesson(0.2, 16, ONE_ITEM),
    ),
    Stage("answers", 600, 1.5e-3, 0.25, MIXED, Lesson(0.1, 16)),
    Stage("guesses", 200, 5e-4, 0.25, MIXED, Lesson(0.1, 0)),
    Stage("sums", 500, 1e-3, 0.25, MIXED, Lesson(0.1, 0, TWO_ITEMS)),
    Stage("practice", 650, 1.5e-3, 0.25, PRACTICE, Lesson(0.05, 12, TWO_ITEMS, TWO_ITEMS)),
    Stage("requests", 300, 1e-3, 0.25, REQUESTS, Lesson(0.05, 12, TWO_ITEMS, TWO_ITEMS, True)),
    Stage("commands", 250, 1e-3, 0.25, COMMANDS, Lesson(0.05, 12, TWO_ITEMS, TWO_ITEMS, True)),
)


class Batches(Dataset[Any]):
    """The batches of a stage. The index of a batch is its step."""

    def __init__(self, stage: Stage, chat: ChatFormat, seed: int) -> None:
        self.stage, self.chat, self.seed = stage, chat, seed
        self.plain = ChatFormat(chat.tokenizer)

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> Any:
        torch.set_num_threads(1)
        rng = np.random.default_rng(derive(self.seed, f"pretrain/{self.stage.name}", str(step)))
        if not self.stage.forms:
            return glyph_batch("train", rng)
        return talk_batch("train", self.stage.forms, self.chat, self.plain, self.stage.lesson, rng)


class Pretraining:
    """The model, its optimizers and its progress.

    `stage` and `step` are the indices of the next stage and step to run.
    """

    def __init__(self, seed: int, work: Path) -> None:
        self.seed, self.work = seed, work
        self.tokenizer = train_tokenizer()
        self.chat = ChatFormat(self.tokenizer, SYSTEM_PROMPT)
        self.model = build_model(self.tokenizer, seed)
        self.reader = GlyphReader(self.model.model.visual, self._embedding)
        self.stage, self.step, self.seconds = 0, 0, 0.0
        self.optimizers: list[torch.optim.Optimizer] = []
        self._resume()

    def _embedding(self, phrase: str) -> Tensor:
        ids = torch.tensor(self.chat.encode(phrase))
        return self.model.get_input_embeddings()(ids).detach().sum(0)

    def run(self, save_every: int, examine_every: int) -> Exam:
        """Run the remaining steps of all stages, and return the accuracy of the result."""
        while self.stage < len(STAGES):
            self._run_stage(STAGES[self.stage], save_every, examine_every)
            self.stage, self.step = self.stage + 1, 0
            self.optimizers = self._optimizers()
            self._save()
        return examine(self.model, self.chat, EXAM)

    def _run_stage(self, stage: Stage, save_every: int, examine_every: int) -> None:
        begun, shown = time.monotonic() - self.seconds, []
        for batch in self._batches(stage):
            shown.append(self._learn(stage, batch))
            self.step, self.seconds = self.step + 1, time.monotonic() - begun
            if self.step % 25 == 0:
                at = f"{stage.name} {self.step}/{stage.steps} {self.seconds:.0f} s"
                print(f"{at} loss {np.mean(shown):.3f}", flush=True)
                shown.clear()
            if self.step % examine_every == 0:
                exam = examine(self.model, self.chat, 400) if stage.forms else self.reader
                print("\n".join(exam.lines()), flush=True)
            if self.step % save_every == 0:
                self._save()

    def _batches(self, stage: Stage) -> Iterator[Any]:
        loader = DataLoader(
            Batches(stage, self.chat, self.seed),
            batch_size=None,
            sampler=range(self.step, stage.steps),
            num_workers=1,
            prefetch_factor=4,
        )
        return iter(loader)

    def _learn(self, stage: Stage, batch: Any) -> float:
        self.reader.visual.requires_grad_(stage.vision > 0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                rate = group["share"] * stage.learning_rate
                group["lr"] = rate * _schedule(self.step, stage.steps)
            optimizer.zero_grad()
        loss: Tensor = answer_loss(self.model, batch) if stage.forms else self.reader.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_([*self.model.parameters(), self.reader.sharpness], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Return AdamW, and Muon for the language model's matrices.

        With Muon, the model learns in fewer steps to attend to the item that a question is about.
        """
        vision = list(self.reader.visual.parameters())
        layers = self.model.model.language_model.layers
        matrices = [parameter for parameter in layers.parameters() if parameter.ndim == 2]
        taken = {id(parameter) for parameter in (*vision, *matrices)}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in taken]
        scale = STAGES[min(self.stage, len(STAGES) - 1)].vision
        groups = [
            {"params": vision, "share": scale},
            {"params": [*rest, self.reader.sharpness], "share": 1.0},
        ]
        return [
            torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.9, 0.98)),
            torch.optim.Muon([{"params": matrices, "share": MUON_RATE}], weight_decay=0.01),
        ]

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "sharpness": self.reader.sharpness.data,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "at": (self.stage, self.step, self.seconds),
        }
        torch.save(state, self.work / "next.pt")
        (self.work / "next.pt").replace(self.work / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.work / "checkpoint.pt"
        state = torch.load(path) if path.exists() else None
        if state is not None:
            self.stage, self.step, self.seconds = state["at"]
            self.model.load_state_dict(state["model"])
            self.reader.sharpness.data = state["sharpness"]
            print(f"resuming stage {self.stage} at step {self.step}", flush=True)
        self.optimizers = self._optimizers()
        if state is not None and self.step:
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)


def _schedule(step: int, steps: int, warmup: int = 50) -> float:
    """Return the factor that multiplies the learning rate at `step`.

    The factor rises linearly over `warmup` steps. It then falls along a cosine to one twentieth.
    """
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))


def main() -> None:
    """Train and measure the policy, and write the policy and its model card."""
    raw = argparse.RawDescriptionHelpFormatter
    work = Path("runs/pretrain")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, required=True, help="directory for the policy")
    parser.add_argument("--work", type=Path, default=work, help="directory for checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the batches")
    parser.add_argument("--threads", type=int, default=1, help="number of OpenMP threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    pretraining = Pretraining(arguments.seed, arguments.work)
    exam = pretraining.run(save_every=100, examine_every=200)
    print("\n".join(exam.lines()))
    save_policy(pretraining.model, pretraining.tokenizer, arguments.out)
    command = "python -m awares.mini.pretrain --out awares/mini/policy_weights"
    figures = {
        "command": f"{command} --seed {arguments.seed}",
        "seed": arguments.seed,
        "seconds": round(pretraining.seconds),
        "parameters": sum(parameter.numel() for parameter in pretraining.model.parameters()),
        "vocabulary": len(pretraining.tokenizer),
        "count": EXAM,
        "accuracy": exam.accuracy,
    }
    write_card(arguments.out, figures)


if __name__ == "__main__":
    main()

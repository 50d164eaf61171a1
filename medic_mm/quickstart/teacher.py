"""A tiny CLIP of open_clip, trained on the captions of the built-in data set."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.registry import DATASETS
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medic_mm.quickstart.captions import CaptionTokenizer

#: The names by which ``open_clip.create_model('local-dir:FOLDER')`` finds its files.
CONFIG_FILE = 'open_clip_config.json'
WEIGHTS_FILE = 'open_clip_model.safetensors'
WORDS_FILE = 'words.json'
HISTORY_FILE = 'training.json'

_LARGEST_SCALE = math.log(100)  # as CLIP clips its temperature


@dataclass(frozen=True)
class Recipe:
    """How the CLIP is trained: AdamW, linear warm-up, cosine to zero.

    Attributes:
        steps: Optimizer steps.
        batch_size: Pairs of image and caption per step.
        learning_rate: Its peak.
        warmup: Steps of warm-up.
        weight_decay: On matrices; vectors are not decayed.
        seed: Of weights and order.
        workers: Processes that make images.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int
    weight_decay: float = 0.05
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True)
class Progress:
    """Where the training is.

    Attributes:
        step: Steps done.
        loss: Contrastive loss, mean since the last report.
        accuracy: Share of images whose own caption is the nearest of the batch's, in
            percent, likewise.
        seconds_left: Estimate.
    """

    step: int
    loss: float
    accuracy: float
    seconds_left: float


def train_teacher(
    config: Mapping[str, Any],
    words: list[str],
    dataset: dict,
    recipe: Recipe,
    folder: Path,
    report: Callable[[Progress], None],
) -> None:
    """Train a CLIP and save it as a checkpoint that open_clip can load.

    Args:
        config: ``model_cfg`` (open_clip's model config) and ``preprocess_cfg`` (mean
            and std, for RGB in 0..1).
        words: The words of the captions.
        dataset: Config of the data set; its samples have ``img`` and ``caption``.
        recipe: How to train.
        folder: Where the checkpoint goes. It appears when all of it is written.
        report: Called about twenty times, and after the last step.

    Raises:
        ValueError: for a vocabulary of another size than the captions'.
    """
    model_cfg = config['model_cfg']
    tokenize = CaptionTokenizer(words, model_cfg['text_cfg']['context_length'])
    if model_cfg['text_cfg']['vocab_size'] != tokenize.vocab_size:
        raise ValueError(
            f'text_cfg.vocab_size={model_cfg["text_cfg"]["vocab_size"]} must be '
            f'{tokenize.vocab_size}: the words of the captions and two more'
        )
    torch.manual_seed(recipe.seed)
    model = open_clip.CLIP(**model_cfg)
    history = []
    for progress in _train(model, tokenize, config['preprocess_cfg'], dataset, recipe):
        history.append(asdict(progress))
        report(progress)
    _save(folder, model, config, tokenize.words, history)


def _train(
    model: open_clip.CLIP,
    tokenize: CaptionTokenizer,
    preprocess: Mapping[str, Any],
    dataset: dict,
    recipe: Recipe,
) -> Iterator[Progress]:
    loader = _loader(dataset, recipe)
    optimizer = _optimizer(model, recipe)
    contrast = ClipLoss()
    model.train()
    start = time.perf_counter()
    sums = torch.zeros(2)
    last = 0
    for step, (images, captions) in enumerate(loader, start=1):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(recipe, step)
        image_features, text_features, scale = model(
            normalise(images, preprocess), tokenize(captions)
        )[:3]
        loss = contrast(image_features, text_features, scale)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0, _LARGEST_SCALE)
        accuracy = caption_accuracy(image_features, text_features, captions)
        sums += torch.tensor([loss.item(), accuracy])
        if step % max(1, recipe.steps // 20) == 0 or step == recipe.steps:
            mean_loss, mean_accuracy = (sums / (step - last)).tolist()
            pace = (time.perf_counter() - start) / step
            left = pace * (recipe.steps - step)
            yield Progress(step, mean_loss, mean_accuracy, left)
            sums, last = torch.zeros(2), step


def learning_rate(recipe: Recipe, step: int) -> float:
    """Of step 1, 2, ...: linear warm-up, then a cosine that ends at zero."""
    if step <= recipe.warmup:
        return recipe.learning_rate * step / recipe.warmup
    done = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def normalise(images: Tensor, preprocess: Mapping[str, Any]) -> Tensor:
    """uint8 RGB ``(B, 3, H, W)`` to what the image tower takes."""
    mean, std = (
        255 * torch.tensor(preprocess[key]).view(3, 1, 1) for key in ('mean', 'std')
    )
    return (images - mean) / std


@torch.no_grad()
def caption_accuracy(images: Tensor, texts: Tensor, captions: list[str]) -> float:
    """Share of images whose nearest text is their caption, in percent.

    Args:
        images: Features ``(B, D)`` of unit length.
        texts: Features ``(B, D)`` of the captions.
        captions: The captions; equal ones count as one.
    """
    chosen = (images @ texts.T).argmax(dim=1).tolist()
    right = [
        captions[i] == caption for i, caption in zip(chosen, captions, strict=True)
    ]
    return 100 * sum(right) / len(right)


def _loader(dataset: dict, recipe: Recipe) -> DataLoader:
    length = recipe.steps * recipe.batch_size
    images = DATASETS.build({**dataset, 'length': length})
    generator = torch.Generator().manual_seed(recipe.seed)
    return DataLoader(
        images,
        batch_size=recipe.batch_size,
        shuffle=True,
        generator=generator,
        num_workers=recipe.workers,
        collate_fn=_collate,
    )


def _collate(samples: list[dict]) -> tuple[Tensor, list[str]]:
    # BGR (H, W, 3) -> RGB (3, H, W)
    images = [torch.from_numpy(s['img'][..., ::-1].copy()) for s in samples]
    captions = [s['caption'] for s in samples]
    return torch.stack(images).permute(0, 3, 1, 2), captions


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {'params': [p for p in trained if p.ndim > 1]},
        {'params': [p for p in trained if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(
        groups, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )


def _save(
    folder: Path,
    model: nn.Module,
    config: Mapping[str, Any],
    words: tuple[str, ...],
    history: list[dict],
) -> None:
    """Write everything beside the folder, then rename: it is complete or absent."""
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, partial / WEIGHTS_FILE)
    for name, content in (
        (CONFIG_FILE, config),
        (WORDS_FILE, words),
        (HISTORY_FILE, history),
    ):
        (partial / name).write_text(json.dumps(content, indent=2) + '\n')
    os.replace(partial, folder)

"""A timm Vision Transformer as an ONNX file, and how near it comes."""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from medic_mm.checkpoints.saving import write_whole
from medic_mm.errors import UserError

_FILE_LIMIT = 2_000_000_000  # bytes: protobuf's limit for a file that holds its weights


class _TokenOutputs(nn.Module):
    """Class token ``(B, D)`` and patch tokens ``(B, L, D)`` after the final norm."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode normalised images ``(B, 3, H, W)``."""
        tokens = self.vit.forward_features(images)
        return tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :]


def write_onnx(vit: VisionTransformer, path: Path) -> None:
    """Write a network with a free batch size; the file appears whole or not at all.

    Input ``images`` (normalised, float32), outputs ``class_token`` and
    ``patch_tokens``. Image size, mean and standard deviation are in the file's metadata
    (``medic_mm``, JSON).

    Raises:
        UserError: without the packages for it, or for over 2 GB of weights.
    """
    try:
        import_module('onnx')
        import_module('onnxscript')  # torch's exporter uses it
    except ImportError as error:
        raise UserError(
            f'ONNX export needs the package {error.name}: '
            'pip install onnx onnxscript onnxruntime'
        ) from error
    size = sum(p.numel() * p.element_size() for p in vit.parameters())
    if size > _FILE_LIMIT:
        raise UserError(
            f'the weights take {size / 1e9:.1f} GB and one ONNX file holds at most '
            f'{_FILE_LIMIT / 1e9:.0f} GB: export a Hugging Face folder instead'
        )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the exporter, about itself
        program = torch.onnx.export(
            _TokenOutputs(vit).eval(),
            (_example_images(vit, 2),),
            input_names=['images'],
            output_names=['class_token', 'patch_tokens'],
            dynamic_shapes=dict(images={0: torch.export.Dim('batch')}),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    entry = model.metadata_props.add()
    keys = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')
    facts = {key: vit.pretrained_cfg[key] for key in keys}
    entry.key, entry.value = 'medic_mm', json.dumps(facts)
    write_whole(path, model.SerializeToString())


@torch.no_grad()
def measure_difference(vit: VisionTransformer, path: Path) -> tuple[float, str]:
    """Largest difference of a token between a file and the network, and who ran it.

    Batches of 1 and of 3 random images are run by onnxruntime, or else by the reference
    evaluator of the package onnx, which is slow.

    Raises:
        RuntimeError: where the file cannot be run.
    """
    run, who = _runner(path)
    largest = 0.0
    for size in (1, 3):
        images = _example_images(vit, size)
        for ours, theirs in zip(_TokenOutputs(vit)(images), run(images), strict=True):
            difference = (ours - torch.from_numpy(theirs)).abs().max().item()
            # not max(): it would pass over NaN
            largest = largest if difference <= largest else difference
    return largest, who


def _example_images(vit: VisionTransformer, size: int) -> Tensor:
    """Random normalised images ``(size, 3, H, W)``, always the same."""
    shape = vit.pretrained_cfg['input_size']
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(size))


def _runner(path: Path) -> tuple[Any, str]:
    try:
        onnxruntime = import_module('onnxruntime')
    except ImportError:
        evaluator = import_module('onnx.reference').ReferenceEvaluator(str(path))
        return (
            lambda images: evaluator.run(None, {'images': images.numpy()}),
            "onnx's reference evaluator",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])
    return lambda images: session.run(None, {'images': images.numpy()}), 'onnxruntime'

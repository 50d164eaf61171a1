"""What the settings ``model`` and ``weights`` mean to open_clip."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from mmengine.logging import MMLogger
from open_clip.transformer import VisionTransformer

from medic_mm.checks import require, require_number
from medic_mm.errors import UserError
from medic_mm.helpers import nearest
from medic_mm.models.teachers.loading import names_a_file, near_names
from medic_mm.randomness import seeded_construction

# open_clip builds both towers: the text tower is made this small, then dropped
NO_TEXT = dict(context_length=1, vocab_size=1, width=8, heads=1, layers=1)
QUICK = '-quickgelu'


@dataclass
class TowerSource:
    """An image tower of open_clip, and where its weights come from.

    Attributes:
        name: The model's name, for messages.
        config: open_clip's config of the model; owned, may be changed.
        tag_config: open_clip's entry of the pretrained tag; empty for a local file.
        mean: Channel means of the weights' preprocessing, for RGB in 0..1.
        std: Their standard deviations.
    """

    name: str
    config: dict[str, Any]
    tag_config: dict[str, Any]
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def quick_gelu(self) -> bool:
        """Whether the tower is built with QuickGELU instead of GELU."""
        return bool(self.config.get('quick_gelu', False))

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self._side('image_size', 224, '; give one side with input_size')

    @image_size.setter
    def image_size(self, side: int) -> None:
        self.config['vision_cfg']['image_size'] = side

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self._side('patch_size', 16, '')

    def build(self) -> VisionTransformer:
        """The image tower with seeded random weights."""
        self._check_numbers()
        try:
            with seeded_construction():
                return open_clip.CLIP(
                    embed_dim=self.config['embed_dim'],
                    vision_cfg=self.config['vision_cfg'],
                    text_cfg=NO_TEXT,
                    quick_gelu=self.quick_gelu,
                ).visual
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UserError(
                f'model={self.name}: open_clip does not accept its vision_cfg ({error})'
            ) from error

    def set_activation(self, quick_gelu: bool, weights: str) -> bool:
        """Take the activation that ``weights`` need; says whether that changed it."""
        if quick_gelu == self.quick_gelu:
            return False
        was, now = ('GELU', 'QuickGELU') if quick_gelu else ('QuickGELU', 'GELU')
        MMLogger.get_current_instance().warning(
            f'model={self.name} has {was}, but the weights {weights} were trained with '
            f'{now}: the teacher uses {now}.'
        )
        self.config['quick_gelu'] = quick_gelu
        return True

    def _check_numbers(self) -> None:
        vision, _ = self.config['vision_cfg'], (self.image_size, self.patch_size)
        for key, default in (('width', 768), ('layers', 12), ('head_width', 64)):
            value = vision.get(key, default)
            require_number(self.name, f'vision_cfg.{key}', value, low=1, integer=True)
        width, head = vision.get('width', 768), vision.get('head_width', 64)
        heads = width // head
        require(
            heads >= 1 and width % heads == 0,
            f'vision_cfg.head_width={head} of {self.name} gives {heads} heads, which '
            f'do not divide the width {width}',
        )

    def _side(self, key: str, default: int, remedy: str) -> int:
        value = self.config['vision_cfg'].get(key, default)
        sides = set(value) if isinstance(value, Sequence) else {value}
        for side in sides:
            require_number(self.name, f'vision_cfg.{key}', side, low=1, integer=True)
        if len(sides) > 1:
            raise UserError(
                f'model={self.name} has {key}={tuple(value)}, which is not '
                f'square{remedy}'
            )
        return sides.pop()


def resolve_tower(
    model: str | Mapping[str, Any], weights: str | None, input_size: int | None
) -> TowerSource:
    """Find the config, the tag, the statistics and the activation; fetches nothing.

    The arguments are those of :class:`OpenCLIPTeacher`.

    Raises:
        ValueError: for an unknown model or tag, or a tower that is not a ViT.
    """
    name, config, preprocess = _read_model(model)
    tag_config = {}
    if weights is not None and not names_a_file(weights):
        tag_config = _find_tag(name, weights)
    statistics = tag_config or preprocess or _shared_statistics(name, weights)
    source = TowerSource(
        name=name,
        config=config,
        tag_config=tag_config,
        mean=statistics.get('mean', open_clip.OPENAI_DATASET_MEAN),
        std=statistics.get('std', open_clip.OPENAI_DATASET_STD),
    )
    if input_size is not None:
        source.image_size = input_size
    if tag_config.get('quick_gelu'):
        source.set_activation(True, repr(weights))
    elif tag_config and name.endswith(QUICK):
        # in other names a config with QuickGELU is right, and the tag does not say so
        source.set_activation(False, repr(weights))
    return source


def _read_model(model: str | Mapping[str, Any]) -> tuple[str, dict, dict]:
    """Name, config of open_clip, and config of the preprocessing."""
    if not isinstance(model, str):
        name, content = 'the config dict', copy.deepcopy(dict(model))
    elif model.endswith('.json'):
        name, content = model, _read_json(model)
    else:
        name, content = _named_config(model)
    config = dict(content.get('model_cfg', content))
    if 'vision_cfg' not in config or 'embed_dim' not in config:
        raise UserError(
            f'model={name}: an open_clip config needs embed_dim and vision_cfg, but '
            f'has {", ".join(map(str, config)) or "no keys"}'
        )
    config['vision_cfg'] = vision = dict(config['vision_cfg'])
    timm_name = vision.get('timm_model_name')
    if timm_name or isinstance(vision.get('layers'), list | tuple):
        tower = f"timm's {timm_name}" if timm_name else 'a ResNet'
        raise UserError(
            f'model={name} has {tower} as its image tower, but OpenCLIPTeacher takes '
            "open_clip's own ViT towers: for a ViT of timm use medic_mm.TimmTeacher"
        )
    return name, config, content.get('preprocess_cfg', {})


def _named_config(model: str) -> tuple[str, dict[str, Any]]:
    name = model.replace('/', '-')
    if name not in open_clip.list_models():
        raise UserError(
            f'model={model!r} is not a model of open_clip'
            f'{near_names(name, open_clip.list_models())}. Give a name of '
            'open_clip.list_models(), a config dict, or the path of an '
            'open_clip_config.json'
        )
    return name, open_clip.get_model_config(name)


def _read_json(path: str) -> dict[str, Any]:
    try:
        return json.loads(Path(path).expanduser().read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(
            f'model={path!r} cannot be read as the JSON config of an open_clip model '
            f'({error})'
        ) from error


def _find_tag(name: str, tag: str) -> dict[str, Any]:
    """open_clip's entry of a tag; a GELU tag of a ``-quickgelu`` model counts too."""
    base = name.removesuffix(QUICK)
    for known in (name, base):
        if open_clip.is_pretrained_cfg(known, tag):
            return open_clip.get_pretrained_cfg(known, tag)
    tags = open_clip.list_pretrained_tags_by_model(base)
    near = nearest(tag, tags)
    tags = near + [known for known in tags if known not in near]
    raise UserError(
        f'weights={tag!r} is neither a local file nor a pretrained tag of {name}, '
        f'which has {"the tags " + ", ".join(tags) if tags else "no tags"}; a local '
        'file is given by a path or with a suffix such as .safetensors or .pt'
    )


def _shared_statistics(name: str, weights: str | None) -> dict[str, Any]:
    """Mean and std that all tags of a model share; else none."""
    base = name.removesuffix(QUICK)
    entries = [
        open_clip.get_pretrained_cfg(base, tag)
        for tag in open_clip.list_pretrained_tags_by_model(base)
    ]
    kinds = {(tuple(entry['mean']), tuple(entry['std'])) for entry in entries}
    if len(kinds) == 1:
        return entries[0]
    if kinds and weights is not None:
        MMLogger.get_current_instance().warning(
            'Weights of %s were trained with several means and standard deviations; '
            "for the local file %s OpenAI's are used. If others are right, give the "
            "weights' own open_clip_config.json as model.",
            name,
            weights,
        )
    return {}

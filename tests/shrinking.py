"""The configs at test size: same components, a grid of 4x4, widths of some tens."""

from __future__ import annotations

from mmengine.config import Config

GRID = 4


def shrink(cfg: Config) -> Config:
    """Make a config small, in place, before anything is built."""
    image = GRID * cfg.model.backbone.patch_size
    {
        'medic_mm.MEDiC': shrink_medic,
        'medic_mm.MIMHD': shrink_mimhd,
        'MAE': shrink_mae,
    }[cfg.model.type](cfg.model, image)
    cfg.model.backbone.img_size = image
    for transform in cfg.train_dataloader.dataset.pipeline:
        for part in [transform, *transform.get('transforms', [])]:
            if 'scale' in part:
                part['scale'] = image
            if 'grid' in part:
                part['grid'] = GRID
            if 'min_area' in part:
                part['min_area'] = 2
    return cfg


def small_arch(width: int, heads: int, blocks: int = 2) -> dict:
    return dict(
        embed_dims=width,
        num_layers=blocks,
        num_heads=heads,
        feedforward_channels=2 * width,
    )


def shrink_medic(model: dict, image: int) -> None:
    model.backbone.arch = small_arch(48, 3)
    if model.get('neck'):
        model.neck.update(small_decoder(48))
    model.head.update(embed_dims=48, target_dims=64)
    model.target_generator = shrink_teacher(model.target_generator, image)
    if model.get('masking'):
        model.masking.schedule.update(clusters=(6, 2))


def shrink_mae(model: dict, image: int) -> None:
    model.backbone.arch = small_arch(48, 3)
    model.neck.update(small_decoder(48))


def small_decoder(width: int) -> dict:
    return dict(
        num_patches=GRID**2,
        embed_dim=width,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
    )


def shrink_mimhd(model: dict, image: int) -> None:
    """Numbers of heads stay as they are, but for 24 columns each in the student."""
    teacher, head = model.target_generator, model.head
    heads = head.student_heads
    width = 8 * heads
    model.student_block = min(model.student_block, 2)
    model.backbone.arch = small_arch(width, heads)
    if model.backbone.get('block_heads'):  # the others keep half as many
        model.backbone.arch['num_heads'] = heads // 2
    head.num_tokens = 1 + GRID**2
    teacher_width = 4 * head.teacher_heads
    teacher.update(
        arch=small_arch(teacher_width, head.teacher_heads, blocks=3),
        block=min(teacher.block, 3),
        weights=None,
        random_weights=True,
        input_size=image,
        norm_pix=head.pixel_loss.norm_pix if head.get('pixel_loss') else None,
    )
    if teacher.get('decoder'):
        teacher.decoder = dict(embed_dims=32, depth=1, num_heads=2)
    if model.get('neck'):
        model.neck.update(embed_dims=width, teacher_dims=teacher_width, decoder_dims=32)


def shrink_teacher(teacher: dict, image: int) -> dict:
    """The same class of teacher, tiny and random, with a grid of 4x4."""
    if teacher['type'] == 'medic_mm.CachedTeacher':
        teacher = teacher['teacher']
    teacher.update(weights=None, random_weights=True)
    if teacher['type'] == 'medic_mm.TimmTeacher':
        teacher.update(model='test_vit', input_size=16 * GRID)
        return teacher
    vision = dict(image_size=image, layers=2, width=64, patch_size=image // GRID)
    text = dict(context_length=4, vocab_size=8, width=64, heads=1, layers=1)
    teacher['model'] = dict(embed_dim=8, vision_cfg=vision, text_cfg=text)
    teacher['input_size'] = image
    return teacher

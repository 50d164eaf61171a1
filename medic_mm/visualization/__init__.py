"""Pictures of training runs and of what models make of images."""

from medic_mm.visualization.attention import (
    ClassAttention,
    choose_block,
    join_batches,
    student_attention,
    teacher_attention,
)
from medic_mm.visualization.attention_figures import (
    INTERPOLATIONS,
    draw_attention,
    draw_overview,
)
from medic_mm.visualization.curves import Curve, draw_curves, read_curves
from medic_mm.visualization.reconstruction import (
    NORMALISED_NOTE,
    Reconstruction,
    draw_reconstruction,
    reconstruct,
    restore_patches,
)

__all__ = [
    'ClassAttention',
    'Curve',
    'INTERPOLATIONS',
    'NORMALISED_NOTE',
    'Reconstruction',
    'choose_block',
    'draw_attention',
    'draw_curves',
    'draw_overview',
    'draw_reconstruction',
    'join_batches',
    'read_curves',
    'reconstruct',
    'restore_patches',
    'student_attention',
    'teacher_attention',
]

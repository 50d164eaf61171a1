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
from medic_mm.visualization.reconstruction import (
    Reconstruction,
    View,
    reconstruct,
    restore_patches,
)
from medic_mm.visualization.reconstruction_figures import (
    NORMALISED_NOTE,
    draw_reconstruction,
    draw_views,
    rows_of,
)

__all__ = [
    'ClassAttention',
    'INTERPOLATIONS',
    'NORMALISED_NOTE',
    'Reconstruction',
    'View',
    'choose_block',
    'draw_attention',
    'draw_overview',
    'draw_reconstruction',
    'draw_views',
    'join_batches',
    'reconstruct',
    'restore_patches',
    'rows_of',
    'student_attention',
    'teacher_attention',
]

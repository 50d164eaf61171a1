"""Frozen teachers."""

from medic_mm.models.teachers.base import FrozenTeacher, TeacherOutput
from medic_mm.models.teachers.cache.cached import CachedTeacher
from medic_mm.models.teachers.mae import MAETeacher
from medic_mm.models.teachers.open_clip import OpenCLIPTeacher
from medic_mm.models.teachers.timm import TimmTeacher

__all__ = [
    'CachedTeacher',
    'FrozenTeacher',
    'MAETeacher',
    'OpenCLIPTeacher',
    'TeacherOutput',
    'TimmTeacher',
]

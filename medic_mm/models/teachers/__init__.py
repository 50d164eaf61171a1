"""Frozen teachers."""

from medic_mm.models.teachers.base import FrozenTeacher, TeacherOutput

__all__ = ['FrozenTeacher', 'TeacherOutput']

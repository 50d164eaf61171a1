"""Hooks of training; importing this package registers them."""

from medic_mm.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook
from medic_mm.engine.hooks.classes_hook import ClassesHook
from medic_mm.engine.hooks.nan_guard_hook import StopOnNaNHook
from medic_mm.engine.hooks.panel_hook import PanelHook
from medic_mm.engine.hooks.pretrained_backbone_hook import PretrainedBackboneHook
from medic_mm.engine.hooks.segmentation_labels_hook import SegmentationLabelsHook
from medic_mm.engine.hooks.skipped_images_hook import SkippedImagesHook
from medic_mm.engine.hooks.strict_weights_hook import StrictWeightsHook
from medic_mm.evaluation.knn_hook import KNNHook
from medic_mm.models.teachers.cache.hook import TeacherCacheHook

__all__ = [
    'AtomicCheckpointHook',
    'ClassesHook',
    'KNNHook',
    'PanelHook',
    'PretrainedBackboneHook',
    'SegmentationLabelsHook',
    'SkippedImagesHook',
    'StopOnNaNHook',
    'StrictWeightsHook',
    'TeacherCacheHook',
]

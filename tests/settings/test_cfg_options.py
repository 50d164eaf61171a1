from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from mmengine.config import Config
from tiny_runs import classifier_config, mae_config

from medic_mm.errors import UserError
from medic_mm.settings.arguments import OptionAction
from medic_mm.settings.options import check_options

IMAGES = Path('images')

GOOD = [
    # top level: what the Runner or mmengine reads, set in the config or not
    {'work_dir': 'out'},
    {'log_level': 'DEBUG'},
    {'find_unused_parameters': True},
    {'compile': True},
    # a component's own arguments, set in the config or not
    {'model.head.norm_pix': True},
    {'model.backbone.drop_path_rate': 0.1},
    {'model.backbone.patch_size': 4},
    # handed on by **kwargs: CustomDataset to BaseDataset
    {'train_dataloader.dataset.indices': 4},
    {'train_dataloader.dataset.data_prefix.img_path': 'train'},
    # a dict that is an argument
    {'model.backbone.arch.num_layers': 1},
    # read by mmengine itself
    {'train_dataloader.batch_size': 4},
    {'train_dataloader.prefetch_factor': 2},
    {'train_dataloader.num_batch_per_epoch': 2},
    {'train_cfg.val_interval': 2},
    {'env_cfg.dist_cfg.timeout': 60},
    {'env_cfg.mp_cfg.mp_start_method': 'spawn'},
    {'randomness.deterministic': True},
    {'auto_scale_lr.base_batch_size': 8},
    {'optim_wrapper.optimizer.weight_decay': 0.1},
    {'optim_wrapper.accumulative_counts': 2},
    {'optim_wrapper.clip_grad.max_norm': 1.0},
    {'optim_wrapper.clip_grad.error_if_nonfinite': True},
    {'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'},
    {'optim_wrapper.paramwise_cfg.norm_decay_mult': 0.0},
    {'optim_wrapper.paramwise_cfg.custom_keys.pos_embed.decay_mult': 0.0},
    {'default_hooks.logger.interval': 5},
    {'default_hooks.checkpoint.max_keep_ckpts': 2, 'default_hooks.timer': None},
    {'default_hooks.checkpoint.priority': 'LOW'},
    {'param_scheduler.0.end': 3},
    {'visualizer.save_dir': 'out'},
    # list elements
    {'train_dataloader.dataset.pipeline.0.imdecode_backend': 'pillow'},
    # a type that the options bring along decides
    {'model.init_cfg.type': 'Pretrained', 'model.init_cfg.checkpoint': 'a.pth'},
    {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': 'bfloat16'},
    {'default_hooks.ema.type': 'EMAHook', 'default_hooks.ema.momentum': 0.1},
    {'model.backbone._delete_': True, 'model.backbone.type': 'ResNet'},
    # whatever is handed on to another library cannot be known
    {
        'model.backbone.type': 'TIMMBackbone',
        'model.backbone.model_name': 'a',
        'model.backbone.anything': 1,
    },
    # a missing component is named better when it is built
    {'model.head.type': 'NoSuchHead', 'model.head.anything': 1},
    # nested values
    {'model': {'head': {'norm_pix': True}}},
]

BAD = [
    (
        {'wrk_dir': 'out'},
        "the config has no setting 'wrk_dir': did you mean 'work_dir'",
    ),
    ({'model.hed.norm_pix': 1}, "model has no setting 'hed': did you mean 'head'?"),
    ({'model.head.nrm_pix': 1}, "model.head has no setting 'nrm_pix': .* 'norm_pix'?"),
    ({'model.head': {'nrm_pix': 1}}, "no setting 'nrm_pix': did you mean 'norm_pix'?"),
    (
        {'model.head.wieghts.token': 1},
        "model.head has no setting 'wieghts'; it takes: in_channels, loss, norm_pix, "
        'patch_size$',
    ),
    ({'model.backbone.patchsize': 1}, "did you mean 'patch_size'?"),
    ({'train_dataloader.dataset.indcies': 4}, "did you mean 'indices'?"),
    (
        {'model.backbone.arch.num_layer': 1},
        "model.backbone.arch has no setting 'num_layer': did you mean 'num_layers'?",
    ),
    ({'train_dataloader.batchsize': 4}, "did you mean 'batch_size'?"),
    ({'train_dataloader.dataset.dataroot': 'a'}, "did you mean 'data_root'?"),
    ({'train_cfg.max_epoch': 4}, "did you mean 'max_epochs'?"),
    ({'env_cfg.dist_cfg.time_out': 4}, "did you mean 'timeout'?"),
    ({'randomness.sead': 4}, "did you mean 'seed'?"),
    ({'optim_wrapper.optimizer.weightdecay': 0.1}, "did you mean 'weight_decay'?"),
    ({'optim_wrapper.optimizer.momentum': 0.1}, "no setting 'momentum'; it takes"),
    ({'optim_wrapper.lr': 0.1}, 'did you mean optim_wrapper.optimizer.lr?'),
    ({'lr': 0.1}, 'did you mean optim_wrapper.optimizer.lr?'),
    ({'model.lr': 0.1}, 'did you mean optim_wrapper.optimizer.lr?'),
    ({'model.head.lr': 0.1}, "model.head has no setting 'lr'; it takes"),
    ({'optim_wrapper.clip_grad.maxnorm': 1.0}, "did you mean 'max_norm'?"),
    ({'optim_wrapper.paramwise_cfg.norm_decay': 0.0}, "'norm_decay_mult'?"),
    ({'optim_wrapper.dtype': 'bfloat16'}, "optim_wrapper has no setting 'dtype'"),
    # the host's hook takes any name, and fails with it at the first checkpoint
    ({'default_hooks.checkpoint.intervl': 5}, "did you mean 'interval'?"),
    ({'default_hooks.chekpoint.interval': 5}, "did you mean 'checkpoint'?"),
    ({'param_scheduler.0.T_mx': 5}, "param_scheduler.0 has .*'T_max'?"),
    ({'param_scheduler.1.T_max': 5}, 'list of 1, .* write param_scheduler.0'),
    ({'param_scheduler.last.T_max': 5}, "list of 1, so 'last' does not name one"),
    ({'custom_hooks.0.interval': 5}, 'custom_hooks is not set in the config'),
    (
        {'train_dataloader.dataset.pipeline.0.decode_backend': 'pillow'},
        "0 has no setting 'decode_backend': did you mean 'imdecode_backend'?",
    ),
    ({'randomness.seed.value': 5}, 'randomness.seed is 0, which has no settings'),
    # the class that the options bring along decides, also against the config's keys
    (
        {'model.head.type': 'MIMHead', 'model.head.patch_size': 1},
        "model.head has no setting 'patch_size'",
    ),
    # a variable of the config file was used up when the file was read
    ({'images': 'new'}, 'changes nothing: set train_dataloader.dataset.data_root$'),
    (
        {'pipeline.0.color_type': 'color'},
        'changes nothing: set train_dataloader.dataset.pipeline.0.color_type$',
    ),
]


@pytest.fixture
def cfg() -> Config:
    cfg = mae_config(IMAGES)
    cfg.images = str(IMAGES)
    cfg.pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.note = 'read by another tool'
    return cfg


@pytest.mark.parametrize('options', GOOD, ids=lambda options: next(iter(options)))
def test_accepted(cfg: Config, options: dict) -> None:
    before = cfg.pretty_text
    check_options(cfg, options)
    assert cfg.pretty_text == before


@pytest.mark.parametrize(
    'options, message', BAD, ids=lambda value: str(next(iter(value)))[:40]
)
def test_refused(cfg: Config, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace('?', r'\?')):
        check_options(cfg, options)


def test_every_wrong_key_is_named(cfg: Config) -> None:
    options = {'wrk_dir': 1, 'log_level': 'INFO', 'model.hed': 1}
    with pytest.raises(UserError) as error:
        check_options(cfg, options)
    assert [line.split(':')[0] for line in str(error.value).splitlines()] == [
        "the config has no setting 'wrk_dir'",
        "model has no setting 'hed'",
    ]


def test_keys_of_a_config_file_are_its_own_affair(cfg: Config) -> None:
    check_options(cfg, {'note': 'changed'})
    cfg.model.head.own = 1
    check_options(cfg, {'model.head.own': 2})


def test_preprocessor_and_loops_without_type() -> None:
    cfg = classifier_config(IMAGES)
    check_options(cfg, {'model.data_preprocessor.to_rgb': True, 'test_cfg.fp16': True})
    check_options(cfg, {'test_evaluator.topk': (1, 5)})
    with pytest.raises(UserError, match="did you mean 'to_rgb'"):
        check_options(cfg, {'model.data_preprocessor.torgb': True})
    with pytest.raises(UserError, match="test_cfg has no setting 'fp_16'"):
        check_options(cfg, {'test_cfg.fp_16': True})


def test_iteration_based_loop(cfg: Config) -> None:
    options = {'train_cfg.by_epoch': False, 'train_cfg.max_iters': 5}
    check_options(cfg, options)
    with pytest.raises(UserError, match='max_iters'):
        check_options(cfg, {'train_cfg.max_iters': 5})


def parse(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


def test_parsing_keeps_blanks_and_the_hosts_forms() -> None:
    options = parse('a=my data/x', 'b=1,2', 'c=[(1,2),x]', 'd=1e-3', 'e=None', 'f=a=b')
    expected = dict(a='my data/x', b=[1, 2], c=[(1, 2), 'x'], d=1e-3, e=None, f='a=b')
    assert options == expected


def test_parsing_refuses_a_word_without_value(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse('a=1', 'b')
    assert "--cfg-options takes key=value, not 'b'" in capsys.readouterr().err

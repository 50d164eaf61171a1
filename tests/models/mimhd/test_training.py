"""What of MIM-HD learns, what stays frozen, and whole runs."""

import copy

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.models.backbones import VisionTransformer
from tiny_mimhd import (
    RELATIONS,
    STUDENT,
    build_mimhd,
    image_batch,
    initialised,
    inputs_of,
    losses_of,
    mimhd_config,
    total,
)
from tiny_runs import write_images
from torch.nn.parallel import DistributedDataParallel

from medic_mm.engine.optimizers import LayerDecayOptimWrapperConstructor

OPTIM = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))


def train(model, steps=3):
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(model)
    for step in range(steps):
        model.train_step(image_batch(seed=step), optimizer)
    return optimizer


def test_everything_that_is_trained_gets_a_gradient_and_the_teacher_none():
    model = build_mimhd()
    total(losses_of(model, image_batch())).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    idle = [n for n, p in trained.items() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert {'neck.mask_token', 'neck.adapter.weight'} <= set(trained)
    assert [n for n in trained if n.startswith('head.')], 'matching has projections'
    network = model.target_generator.network
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_loss_goes_down_on_one_batch():
    model = build_mimhd()
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(model)
    history = [
        model.train_step(image_batch(), optimizer)['loss'].item() for _ in range(40)
    ]
    assert history[-1] < 0.9 * history[0]


def test_teacher_survives_the_parents_initialisation_and_training():
    config = mimhd_config()
    config['init_cfg'] = [
        dict(type='Constant', layer='Linear', val=7.0),
        dict(type='Constant', layer='LayerNorm', val=7.0),
    ]
    model = MODELS.build(config)
    network = model.target_generator.network
    before = copy.deepcopy(network.state_dict())
    model.init_weights()
    assert (model.backbone.ln1.weight == 7).all(), 'the test reaches nothing'
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

    model = build_mimhd()
    teacher, before = model.target_generator, model.target_generator.fingerprint()
    student = model.backbone.layers[0].attn.qkv.weight.clone()
    token = model.neck.mask_token.clone()
    model.train()
    train(model)
    assert teacher.fingerprint() == before
    assert not any(module.training for module in teacher.network.modules())
    assert not torch.equal(student, model.backbone.layers[0].attn.qkv.weight)
    assert not torch.equal(token, model.neck.mask_token)


def test_teacher_is_absent_from_checkpoint_optimizer_and_average():
    model = build_mimhd()
    assert not [k for k in model.state_dict() if k.startswith('target_generator')]
    optimizer = train(model, steps=1).optimizer
    held = {id(p) for p in model.target_generator.network.parameters()}
    grouped = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert held and not held & grouped
    average = ExponentialMovingAverage(model).module
    assert average.target_generator.network is model.target_generator.network


def test_mask_token_starts_as_the_teachers_or_from_the_file(tmp_path):
    model = MODELS.build(mimhd_config())
    model.target_generator.init_weights()
    with torch.no_grad():
        model.target_generator.mask_token.copy_(torch.arange(32.0))
    model.init_weights()
    assert model.neck.mask_token.flatten().tolist() == list(range(32))
    assert model.neck.mask_token.requires_grad

    with torch.no_grad():
        model.neck.mask_token.fill_(5.0)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'mimhd.pth')
    again = mimhd_config()
    again['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'mimhd.pth'))
    again = initialised(again)
    assert (again.neck.mask_token == 5).all()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(
    'matching',
    [
        dict(type='medic_mm.AverageMatching'),
        dict(type='medic_mm.SelectMatching', heads=[0, 1, 3]),
        dict(type='medic_mm.RelationHeadMatching', num_heads=8),
        dict(type='medic_mm.AdaptiveMatching', balance='sinkhorn', temperature=0.1),
    ],
    ids=lambda matching: matching['type'],
)
def test_other_matchings_train(matching):
    model = build_mimhd(matching=matching)
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(model)
    first, *_, last = (model.train_step(image_batch(), optimizer) for _ in range(20))
    assert last['loss_qk'] < first['loss_qk']
    assert last['loss_vv'] < first['loss_vv']
    assert last['loss_pixel'] < first['loss_pixel']


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone; its reducer checks as with many."""
    store = dist.FileStore(str(tmp_path / 'store'), 1)
    dist.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('weights', [None, RELATIONS])
def test_only_relations_alone_need_find_unused_parameters(one_process, weights):
    model = build_mimhd(weights)

    def two_steps(**settings):
        wrapped = DistributedDataParallel(model, **settings)
        for _ in range(2):
            total(wrapped(**inputs_of(model, image_batch()), mode='loss')).backward()

    if weights is None:
        two_steps()
    else:
        with pytest.raises(RuntimeError, match='find_unused_parameters=True'):
            two_steps()
        two_steps(find_unused_parameters=True)


# whole runs


def run_config(images, folder, epochs=1):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='PackInputs'),
    ]
    return Config(
        dict(
            default_scope='mmpretrain',
            model=mimhd_config(),
            work_dir=str(folder),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dict(
                    type='CustomDataset',
                    data_root=str(images),
                    with_label=False,
                    pipeline=pipeline,
                ),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(type='OptimWrapper', **OPTIM),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', interval=1),
            ),
            randomness=dict(seed=0),
        )
    )


def test_runs_and_resumes_through_the_runner(tmp_path):
    images = write_images(tmp_path / 'images')  # 8 images: two steps an epoch
    runner = Runner.from_cfg(run_config(images, tmp_path / 'run', epochs=2))
    runner.train()
    assert runner.iter == 4
    saved = torch.load(
        tmp_path / 'run' / 'epoch_2.pth', map_location='cpu', weights_only=False
    )
    assert not [k for k in saved['state_dict'] if k.startswith('target_generator')]

    torch.manual_seed(1)
    student = VisionTransformer(arch=STUDENT, img_size=32, patch_size=8, out_type='raw')
    prefix = 'backbone.'
    weights = {
        key.removeprefix(prefix): value
        for key, value in saved['state_dict'].items()
        if key.startswith(prefix)
    }
    student.load_state_dict(weights, strict=True)
    student.eval()
    runner.model.eval()
    picture = torch.randn(1, 3, 32, 32)
    assert torch.equal(student(picture)[-1], runner.model.extract_feat(picture)[-1])

    cfg = run_config(images, tmp_path / 'run', epochs=3)
    cfg.resume, cfg.experiment_name = True, 'resumed'
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    assert resumed.iter == 6
    load_checkpoint(resumed.model, str(tmp_path / 'run' / 'epoch_3.pth'), strict=True)

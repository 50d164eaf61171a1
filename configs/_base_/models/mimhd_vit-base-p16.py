# MIM-HD, ViT-B/16 student, MAE ViT-L/16 teacher.
model = dict(
    type='medic_mm.MIMHD',
    student_block=12,
    mask_ratio=0.5,
    backbone=dict(
        type='medic_mm.RelationViT',
        arch='base',
        img_size=224,
        patch_size=16,
        # the paper gives no drop path; 0.1 is TinyMIM's, which found 0.1 the best
        drop_path_rate=0.1,
    ),
    # adapter to the teacher's width and the mask token; the decoder is the teacher's
    neck=dict(
        type='medic_mm.DualViewDecoder',
        embed_dims=768,
        teacher_dims=1024,
        decoder_dims=512,
    ),
    head=dict(
        type='medic_mm.MIMHDHead',
        student_heads=12,
        teacher_heads=16,
        num_tokens=197,
        # Eq. 4 averages softmaxed maps, which gives 1/N for every head and image; the
        # mean before the softmax is the nearest reading that says anything
        matching=dict(type='medic_mm.AdaptiveMatching', descriptor='mean_logit'),
        distance='kl',
        # alpha, the pixel weight, is not in the paper; 0.1 keeps the pixel term below
        # the relation terms
        weights=dict(qk=1.0, vv=1.0, pixel=0.1),
        pixel_loss=dict(
            type='MAEPretrainHead',
            norm_pix=True,
            patch_size=16,
            loss=dict(type='PixelReconstructionLoss', criterion='L2'),
        ),
    ),
    target_generator=dict(
        type='medic_mm.MAETeacher',
        arch='large',
        block=18,
        # encoder and decoder; mae_pretrain_vit_large.pth has no decoder
        weights='data/teachers/mae_pretrain_vit_large_full.pth',
        decoder=dict(embed_dims=512, depth=8, num_heads=16),
    ),
)

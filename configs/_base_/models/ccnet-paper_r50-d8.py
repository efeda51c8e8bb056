# The network of the authors' code (https://github.com/speedinghzl/CCNet).
# Against the hosts' CCNet: MIT's stem and weights, dilation in the first
# block of a stage too, leaky ReLU in the heads, 512 channels in the auxiliary
# head, align_corners, BGR input without scaling.
norm_cfg = dict(type='SyncBN', requires_grad=True)
act_cfg = dict(type='LeakyReLU', negative_slope=0.01)
# The mean over the labelled pixels, as torch's own cross entropy takes it.
loss_decode = dict(
    type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[104.00698793, 116.66876762, 122.67891434],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_val=0,
        seg_pad_val=255,
    ),
    # The hosts publish no weights for this stem. To start from theirs:
    # --cfg-options model.backbone.stem_channels=64
    # model.pretrained=open-mmlab://resnet50_v1c
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet50-imagenet.pth',
    backbone=dict(
        type='mmseg_attn.DeepStemResNet',
        depth=50,
        stem_channels=128,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        contract_dilation=False,
    ),
    decode_head=dict(
        type='mmseg_attn.CCHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        recurrence=2,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        align_corners=True,
        loss_decode=loss_decode,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=512,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        align_corners=True,
        loss_decode=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

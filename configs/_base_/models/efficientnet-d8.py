# A backbone in place of another's, for the configs that read this variable:
# bases cannot share `model`.
# No pre-trained weights are named here: set model.backbone.init_cfg to those
# of OpenMMLab's classification zoo (prefix 'backbone.') or your own.
efficientnet = dict(
    type='mmseg_attn.DilatedEfficientNet',
    output_stride=8,
    norm_cfg=dict(type='SyncBN', requires_grad=True, eps=1e-3, momentum=0.01),
)

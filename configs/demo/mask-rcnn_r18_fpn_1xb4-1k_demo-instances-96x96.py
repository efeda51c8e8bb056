_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_small.py',
    '../_base_/datasets/demo-instances.py',
    '../_base_/schedules/schedule_demo-instances-1k.py',
    '../_base_/default_runtime_mmdet.py',
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval={{_base_.max_iters}}),
)
log_processor = dict(by_epoch=False)

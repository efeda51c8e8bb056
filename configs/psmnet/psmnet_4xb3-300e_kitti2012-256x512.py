_base_ = [
    '../_base_/models/psmnet.py',
    '../_base_/datasets/kitti2012-stereo.py',
    '../_base_/schedules/schedule_psmnet-300e.py',
    '../_base_/default_runtime_stereo.py',
]
# A checkpoint of training on Scene Flow, such as the official one:
# --cfg-options load_from=CHECKPOINT
model = dict(loss_disparity=dict(max_disparity=float('inf')))
log_processor = dict(by_epoch=True)

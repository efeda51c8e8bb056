_base_ = [
    '../_base_/models/psmnet.py',
    '../_base_/datasets/sceneflow.py',
    '../_base_/schedules/schedule_psmnet-10e.py',
    '../_base_/default_runtime_stereo.py',
]
log_processor = dict(by_epoch=True)

# The shorter side to 520 pixels, then crops of 520x520.
_base_ = ['./pascal_context_59.py', './short_side.py']
crop_size = (520, 520)
train_pipeline = {{_base_.short_side.to_520.train}}
test_pipeline = {{_base_.short_side.to_520.test}}
tta_pipeline = {{_base_.short_side.to_520.tta}}
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# The shorter side to 513 pixels, then crops of 513x513.
_base_ = ['./pascal_context_59.py', './short_side.py']
crop_size = (513, 513)
train_pipeline = {{_base_.short_side.to_513.train}}
test_pipeline = {{_base_.short_side.to_513.test}}
tta_pipeline = {{_base_.short_side.to_513.tta}}
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

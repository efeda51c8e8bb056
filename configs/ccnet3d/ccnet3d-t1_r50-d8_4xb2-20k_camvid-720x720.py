_base_ = ['./ccnet3d-t5_r50-d8_4xb2-20k_camvid-720x720.py']
train_dataloader = dict(dataset=dict(frames=1))
val_dataloader = dict(dataset=dict(frames=1))
test_dataloader = dict(dataset=dict(frames=1))

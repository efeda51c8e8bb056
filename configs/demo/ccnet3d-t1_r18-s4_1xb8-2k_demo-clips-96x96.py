_base_ = ['./ccnet3d-t5_r18-s4_1xb8-2k_demo-clips-96x96.py']
train_dataloader = dict(dataset=dict(frames=1))
val_dataloader = dict(dataset=dict(frames=1))
test_dataloader = val_dataloader

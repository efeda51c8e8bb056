# The first 160 of the 194 annotated pairs to train, the last 34 to validate.
# PSMNet's code trains on all of them, the 34 too:
#   --cfg-options train_dataloader.dataset.indices=None
_base_ = './kitti2015-stereo.py'
data_root = 'data/kitti2012/training'
data_prefix = dict(left='colored_0', right='colored_1', disparity='disp_occ')
train_dataloader = dict(
    dataset=dict(data_root=data_root, data_prefix=data_prefix)
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, data_prefix=data_prefix, indices=-34)
)
test_dataloader = val_dataloader

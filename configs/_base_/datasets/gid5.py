# Patches of the large GID set as tools/dataset_converters/gid15.py --classes 5
# writes them.
_base_ = './gid15.py'
of_five = dict(type='mmseg_attn.GID5Dataset', data_root='data/gid5')
train_dataloader = dict(dataset=of_five)
val_dataloader = dict(dataset=of_five)
test_dataloader = dict(dataset=of_five)

# CCNet on LIP as in the paper: CE2P's parsing network with recurrent
# criss-cross attention and the category consistent loss. The paper gives no
# schedule; this is CE2P's.
_base_ = [
    '../_base_/models/ccnet-ce2p_r50-d16.py',
    '../_base_/datasets/lip.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_ce2p-115k.py',
]
crop_size = (473, 473)
model = dict(data_preprocessor=dict(size=crop_size))
tta_model = dict(
    type='mmseg_attn.MirrorTTAModel', swap_labels={{_base_.swap_labels}}
)

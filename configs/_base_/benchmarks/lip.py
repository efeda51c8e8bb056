# The hosts have no recipe for LIP: the schedule is CE2P's.
_base_ = [
    '../datasets/lip.py',
    '../default_runtime.py',
    '../schedules/schedule_ce2p-115k.py',
]
tta_model = dict(
    type='mmseg_attn.MirrorTTAModel', swap_labels={{_base_.swap_labels}}
)

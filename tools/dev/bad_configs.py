# Copyright (c) mmseg_attn contributors.
"""Mistakes in a config, of one entry each, for a training and a test."""

from collections.abc import Iterator

from answers import Case
from material import Material

# Entry -> values that it cannot have.
WRONG = {
    'model': ['None', '[1, 2]', "'x'"],
    'model.type': ["'EncoderDecodr'", 'None', '3'],
    'model.backbone.type': ["'ResNt'", 'None'],
    'model.backbone.depth': ['17', "'18'"],
    'model.backbone.norm_cfg': ["dict(type='BNN')", "'BN'", '3'],
    'model.decode_head.type': ["'FCNHed'", 'None'],
    'model.decode_head.in_channels': ['7', "'a'", '-1'],
    'model.decode_head.in_index': ['9', "'a'"],
    'model.decode_head.num_classes': ['2', "'a'"],
    'model.decode_head.ignore_index': ['0', '7'],
    'model.decode_head.norm_cfg': ["dict(type='BNN')", "'BN'"],
    'model.decode_head.loss_decode.class_weight': ["'a.pkl'", "'a.yaml'"],
    'model.decode_head.loss_decode.type': ["'CrosEntropyLoss'", 'None'],
    'model.decode_head.loss_decode.loss_weigt': ['1.0'],
    'model.decode_head.no_such': ['1'],
    'model.data_preprocessor.type': ["'SegData'", 'None'],
    'model.data_preprocessor.no_such': ['1'],
    'default_scope': ["'mmsegg'", "'no_such'"],
    'default_hooks': ["'x'", '[1]'],
    'default_hooks.logger.interval': ['0', '-5'],
    'default_hooks.logger.intervl': ['1'],
    'default_hooks.checkpoint': ["'x'"],
    'default_hooks.checkpoint.type': ["'CheckpontHook'"],
    'default_hooks.timer.no_such': ['1'],
    'custom_hooks': ["['EMAHook']", "[dict(type='NoHook')]", "'x'"],
    'log_level': ["'LOUD'", '3'],
    'visualizer.type': ["'Vis'"],
    'visualizer.alfa': ['1'],
    'log_processor.no_such': ['1'],
    'env_cfg.mp_cfg.mp_start_method': ["'frk'"],
    'randomness': ['dict(sed=1)', "'x'"],
}
TRAINING = {
    'train_dataloader': ['None', "'x'", '[1]'],
    'train_dataloader.batch_size': ["'a'", '0', '-1', '1.5'],
    'train_dataloader.num_workers': ['-1', "'a'"],
    'train_dataloader.no_such': ['1'],
    'train_dataloader.sampler.type': ["'Infinite'"],
    'train_dataloader.sampler.shufle': ['True'],
    'train_dataloader.dataset.type': ["'FoldrDataset'", 'None'],
    'train_dataloader.dataset.data_root': ["'no/such'", "''"],
    'train_dataloader.dataset.data_prefix.img_path': ["'no_such'"],
    'train_dataloader.dataset.data_prefix.seg_map_path': ["'no_such'"],
    'train_dataloader.dataset.ann_file': ["'no_such.txt'"],
    'train_dataloader.dataset.img_suffix': ["'.nope'"],
    'train_dataloader.dataset.img_sufix': ["'.png'"],
    'train_dataloader.dataset.metainfo': [
        "dict(classes='ab')",
        "dict(classes=('a', 'b'))",
    ],
    'train_dataloader.dataset.pipeline': [
        "'x'",
        "[dict(type='LoadImg')]",
        "[dict(type='LoadImageFromFile', no_such=1)]",
        '[dict()]',
        '[3]',
    ],
    'train_cfg': ['None', "'x'", 'dict(max_iters=1, max_epochs=1)'],
    'train_cfg.type': ["'IterLoop'"],
    'train_cfg.max_iter': ['10'],
    'train_cfg.max_iters': ['0', '-5', "'many'", '2.5', 'None'],
    'train_cfg.val_interval': ['0', '-1', "'a'"],
    'val_cfg': ['None', "'x'"],
    'val_dataloader': ['None', "'x'"],
    'val_dataloader.dataset.data_root': ["'no/such'"],
    'val_evaluator': ['None', "'x'"],
    'val_evaluator.type': ["'IoUMetrc'"],
    'val_evaluator.iou_metrics': ["['mIou']", "'mIoU'"],
    'val_evaluator.iou_metric': ["['mIoU']"],
    'val_evaluator.ignore_index': ['3'],
    'optim_wrapper': ['None', "'x'"],
    'optim_wrapper.type': ["'OptimWraper'"],
    'optim_wrapper.clip_gradd': ['dict(max_norm=1)'],
    'optim_wrapper.optimizer.type': ["'AdmW'", 'None'],
    'optim_wrapper.optimizer.lr': ["'x'", '-1'],
    'optim_wrapper.optimizer.learning_rate': ['0.1'],
    'param_scheduler': ["'poly'", "[dict(type='PolyL')]", '[3]'],
    'default_hooks.checkpoint.interval': ['0', '-3'],
    'default_hooks.checkpoint.max_keep_ckpt': ['3'],
    'default_hooks.checkpoint.save_bst': ["'mIoU'"],
    'load_from': ["'no_such.pth'"],
    'resume': ["'no_such.pth'"],
    'train_dataloder': ['dict()'],
    'optim_wraper': ['dict()'],
    'default_hook': ['dict()'],
}
TESTING = {
    key.replace('val_', 'test_').replace('train_', 'test_'): values
    for key, values in TRAINING.items()
    if key.startswith(('val_', 'train_dataloader'))
    and 'sampler' not in key
    and 'classes' not in str(values)
}


def config_cases(material: Material) -> Iterator[Case]:
    """Each mistake in a config of its own."""
    for name, path in material.configs().items():
        yield _train(material, f'config {name}', path)
        yield _test(material, f'config {name}', path)
    for key, value in _entries(WRONG, TRAINING):
        yield _train(material, f'{key} = {value}', _own(material, key, value))
    for key, value in _entries(WRONG, TESTING):
        yield _test(material, f'{key} = {value}', _own(material, key, value))


def _entries(*tables: dict) -> Iterator[tuple[str, str]]:
    for table in tables:
        for key, values in table.items():
            for value in values:
                yield key, value


def _own(material: Material, key: str, value: str):
    """The right config with one entry changed, written as a user would."""
    first, *rest = key.split('.')
    for part in reversed(rest):
        value = f'dict({part}={value})'
    own = f'{first} = {value}\n'
    if first == 'train_cfg' and value.startswith('dict('):
        # Else the base's iterations count.
        inner = value.removeprefix('dict(').removesuffix(')')
        if 'max_iters' not in inner:
            own = f'train_cfg = dict(max_iters=1, {inner})\n'
    text = material.config.read_text()
    lines = [
        line for line in text.splitlines(True) if not line.startswith(first)
    ]
    name = f'own/{abs(hash((key, value)))}.py'
    return material.write(name, ''.join(lines) + own)


def _train(material: Material, name: str, path) -> Case:
    def run() -> object:
        return material.tool(
            'train.py', path, '--work-dir', material.work_dir()
        )

    return Case('tools/train.py', name, run)


def _test(material: Material, name: str, path) -> Case:
    def run() -> object:
        work = material.work_dir()
        given = path, material.weights, '--work-dir', work
        return material.tool('test.py', *given)

    return Case('tools/test.py', name, run)

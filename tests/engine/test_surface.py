"""The names, signatures and attributes of Dassl 0.6.3 that public prompt-learning and generalisation code uses."""
import importlib
import inspect
import pkgutil
import sys
import textwrap

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.engine import SimpleTrainer, TrainerX, TrainerXU, build_trainer

IMPORTS = """
dassl.config: get_cfg_default clean_cfg
dassl.data: DataManager DatasetWrapper
dassl.data.data_manager: DataManager DatasetWrapper build_data_loader build_dataset build_sampler build_transform
dassl.data.datasets: DATASET_REGISTRY DatasetBase Datum build_dataset PACS VLCS OfficeHomeDG DigitsDG Office31
dassl.data.datasets: OfficeHome
dassl.data.datasets.base_dataset: DatasetBase Datum
dassl.data.datasets.build: DATASET_REGISTRY build_dataset
dassl.data.datasets.da: office_home OfficeHome Office31 DomainNet miniDomainNet VisDA17
dassl.data.datasets.dg: PACS VLCS OfficeHomeDG DigitsDG DomainNetDG
dassl.data.samplers: build_sampler RandomSampler SequentialSampler RandomDomainSampler SeqDomainSampler
dassl.data.samplers: RandomClassSampler
dassl.data.transforms: INTERPOLATION_MODES build_transform
dassl.data.transforms.autoaugment: ImageNetPolicy CIFAR10Policy SVHNPolicy
dassl.data.transforms.randaugment: RandAugment RandAugment2 RandAugmentFixMatch
dassl.data.transforms.transforms: AVAI_CHOICES INTERPOLATION_MODES build_transform Random2DTranslation Cutout
dassl.data.transforms.transforms: InstanceNormalization GaussianNoise
dassl.engine: TRAINER_REGISTRY build_trainer TrainerBase SimpleTrainer SimpleNet TrainerX TrainerXU
dassl.engine.build: TRAINER_REGISTRY build_trainer
dassl.engine.da: SourceOnly
dassl.engine.dg: Vanilla DomainMix CrossGrad
dassl.engine.dg.vanilla: Vanilla
dassl.engine.ssl: FixMatch SupBaseline
dassl.engine.trainer: AverageMeter MetricMeter SimpleNet SimpleTrainer TrainerBase TrainerX TrainerXU
dassl.evaluation: EVALUATOR_REGISTRY build_evaluator EvaluatorBase Classification
dassl.evaluation.evaluator: EvaluatorBase Classification
dassl.metrics: compute_accuracy compute_distance_matrix
dassl.metrics.accuracy: compute_accuracy
dassl.metrics.distance: compute_distance_matrix euclidean_squared_distance cosine_distance
dassl.modeling: BACKBONE_REGISTRY Backbone build_backbone HEAD_REGISTRY build_head NETWORK_REGISTRY build_network
dassl.modeling.backbone: BACKBONE_REGISTRY Backbone build_backbone
dassl.modeling.backbone.backbone: Backbone
dassl.modeling.backbone.build: BACKBONE_REGISTRY build_backbone
dassl.modeling.backbone.resnet: ResNet resnet18 resnet50 resnet18_ms_l123 resnet50_efdmix_l12
dassl.modeling.head: HEAD_REGISTRY build_head mlp
dassl.modeling.network: NETWORK_REGISTRY build_network
dassl.modeling.ops: mixup MixStyle random_mixstyle activate_mixstyle run_with_mixstyle deactivate_mixstyle
dassl.modeling.ops: crossdomain_mixstyle run_without_mixstyle EFDMix random_efdmix activate_efdmix run_with_efdmix
dassl.modeling.ops: deactivate_efdmix crossdomain_efdmix run_without_efdmix ReverseGrad Sequential2 cross_entropy
dassl.modeling.ops: MaximumMeanDiscrepancy DSBN1d DSBN2d TransNorm1d TransNorm2d SinkhornDivergence
dassl.modeling.ops: MinibatchEnergyDistance
dassl.modeling.ops.utils: sharpen_prob reverse_index shuffle_index create_onehot sigmoid_rampup linear_rampup
dassl.modeling.ops.utils: ema_model_update
dassl.modeling.ops.mixstyle: MixStyle run_with_mixstyle run_without_mixstyle
dassl.modeling.ops.mixup: mixup
dassl.optim: build_optimizer build_lr_scheduler
dassl.optim.lr_scheduler: AVAI_SCHEDS build_lr_scheduler ConstantWarmupScheduler LinearWarmupScheduler
dassl.optim.lr_scheduler: torch _LRScheduler _BaseWarmupScheduler
dassl.optim.optimizer: AVAI_OPTIMS build_optimizer
dassl.optim.radam: RAdam
dassl.utils: AverageMeter MetricMeter Registry Logger setup_logger check_availability check_isfile collect_env_info
dassl.utils: count_num_param download_url get_most_similar_str_to_a_from_b init_network_weights listdir_nohidden
dassl.utils: load_checkpoint load_pretrained_weights mkdir_if_missing open_all_layers open_specified_layers read_image
dassl.utils: read_json resume_from_checkpoint save_checkpoint set_random_seed tolist_if_not write_json
dassl.utils.logger: Logger setup_logger
dassl.utils.meters: AverageMeter MetricMeter
dassl.utils.registry: Registry
dassl.utils.tools: mkdir_if_missing read_image set_random_seed read_json write_json
dassl.utils.torchtools: save_checkpoint load_checkpoint resume_from_checkpoint open_all_layers open_specified_layers
dassl.utils.torchtools: count_num_param load_pretrained_weights init_network_weights set_bn_to_eval
dassl.data.data_manager: TorchDataset T tabulate read_image INTERPOLATION_MODES
dassl.data.transforms.transforms: np random Resize Compose ToTensor Normalize RandomHorizontalFlip InterpolationMode
dassl.engine.trainer: time osp datetime np OrderedDict torch nn tqdm SummaryWriter DataManager build_optimizer
dassl.engine.trainer: build_lr_scheduler tolist_if_not count_num_param load_checkpoint save_checkpoint
dassl.engine.trainer: mkdir_if_missing resume_from_checkpoint load_pretrained_weights build_head build_backbone
dassl.engine.trainer: build_evaluator
dassl.evaluation.evaluator: np osp OrderedDict defaultdict f1_score confusion_matrix EVALUATOR_REGISTRY
dassl.utils.tools: os sys json time errno np random osp warnings datetime torch PIL Image
dassl.utils.torchtools: pickle shutil osp warnings partial OrderedDict torch nn mkdir_if_missing
"""
NAMES = [(line.split(":")[0], name) for line in IMPORTS.strip().splitlines() for name in line.split(":")[1].split()]

SIGNATURES = """
dassl.config.clean_cfg(cfg, trainer)
dassl.data.DataManager(cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None)
dassl.data.DatasetWrapper(cfg, data_source, transform=None, is_train=False)
dassl.data.data_manager.build_data_loader(cfg, sampler_type='SequentialSampler', data_source=None, batch_size=64, \
n_domain=0, n_ins=2, tfm=None, is_train=True, dataset_wrapper=None)
dassl.data.datasets.Datum(impath='', label=0, domain=0, classname='')
dassl.data.datasets.DatasetBase(train_x=None, train_u=None, val=None, test=None)
dassl.data.datasets.DatasetBase.generate_fewshot_dataset(self, *data_sources, num_shots=-1, repeat=False)
dassl.data.datasets.DatasetBase.download_data(self, url, dst, from_gdrive=True)
dassl.data.datasets.DatasetBase.get_num_classes(data_source)
dassl.data.datasets.DatasetBase.get_lab2cname(data_source)
dassl.data.datasets.DatasetBase.check_input_domains(self, source_domains, target_domains)
dassl.data.datasets.DatasetBase.is_input_domain_valid(self, input_domains)
dassl.data.datasets.build_dataset(cfg)
dassl.data.samplers.build_sampler(sampler_type, cfg=None, data_source=None, batch_size=32, n_domain=0, n_ins=16)
dassl.data.samplers.RandomDomainSampler(data_source, batch_size, n_domain)
dassl.data.samplers.SeqDomainSampler(data_source, batch_size)
dassl.data.samplers.RandomClassSampler(data_source, batch_size, n_ins)
dassl.data.transforms.build_transform(cfg, is_train=True, choices=None)
dassl.data.transforms.transforms.Cutout(n_holes=1, length=16)
dassl.data.transforms.transforms.GaussianNoise(mean=0, std=0.15, p=0.5)
dassl.data.transforms.transforms.InstanceNormalization(eps=1e-08)
dassl.data.transforms.randaugment.RandAugment(n=2, m=10)
dassl.data.transforms.randaugment.RandAugment2(n=2, p=0.6)
dassl.data.transforms.randaugment.RandAugmentFixMatch(n=2)
dassl.engine.build_trainer(cfg)
dassl.engine.SimpleNet(cfg, model_cfg, num_classes, **kwargs)
dassl.engine.SimpleNet.forward(self, x, return_feature=False)
dassl.engine.TrainerX(cfg)
dassl.engine.TrainerXU.parse_batch_train(self, batch_x, batch_u)
dassl.engine.TrainerX.parse_batch_train(self, batch)
dassl.engine.TrainerX.test(self, split=None)
dassl.engine.TrainerX.register_model(self, name='model', model=None, optim=None, sched=None)
dassl.engine.TrainerX.get_model_names(self, names=None)
dassl.engine.TrainerX.save_model(self, epoch, directory, is_best=False, val_result=None, model_name='')
dassl.engine.TrainerX.load_model(self, directory, epoch=None)
dassl.engine.TrainerX.resume_model_if_exist(self, directory)
dassl.engine.TrainerX.set_model_mode(self, mode='train', names=None)
dassl.engine.TrainerX.update_lr(self, names=None)
dassl.engine.TrainerX.detect_anomaly(self, loss)
dassl.engine.TrainerX.init_writer(self, log_dir)
dassl.engine.TrainerX.write_scalar(self, tag, scalar_value, global_step=None)
dassl.engine.TrainerX.model_inference(self, input)
dassl.engine.TrainerX.model_zero_grad(self, names=None)
dassl.engine.TrainerX.model_backward(self, loss)
dassl.engine.TrainerX.model_update(self, names=None)
dassl.engine.TrainerX.model_backward_and_update(self, loss, names=None)
dassl.engine.TrainerX.get_current_lr(self, names=None)
dassl.engine.TrainerBase.train(self, start_epoch, max_epoch)
dassl.evaluation.build_evaluator(cfg, **kwargs)
dassl.evaluation.Classification(cfg, lab2cname=None, **kwargs)
dassl.evaluation.Classification.process(self, mo, gt)
dassl.metrics.compute_accuracy(output, target, topk=(1,))
dassl.metrics.compute_distance_matrix(input1, input2, metric='euclidean')
dassl.modeling.build_backbone(name, verbose=True, **kwargs)
dassl.modeling.build_head(name, verbose=True, **kwargs)
dassl.modeling.build_network(name, verbose=True, **kwargs)
dassl.modeling.ops.mixup(x1, x2, y1, y2, beta, preserve_order=False)
dassl.modeling.ops.MixStyle(p=0.5, alpha=0.1, eps=1e-06, mix='random')
dassl.modeling.ops.EFDMix(p=0.5, alpha=0.1, eps=1e-06, mix='random')
dassl.modeling.ops.run_with_mixstyle(model, mix=None)
dassl.modeling.ops.run_without_mixstyle(model)
dassl.modeling.ops.cross_entropy(input, target, label_smooth=0, reduction='mean')
dassl.modeling.ops.MaximumMeanDiscrepancy(kernel_type='rbf', normalize=False)
dassl.modeling.ops.SinkhornDivergence(dist_metric='cosine', eps=0.01, max_iter=5, bp_to_sinkhorn=False)
dassl.modeling.ops.TransNorm2d(num_features, eps=1e-05, momentum=0.1, adaptive_alpha=True)
dassl.modeling.ops.DSBN2d(num_features, n_domain)
dassl.modeling.ops.ReverseGrad.forward(self, x, grad_scaling=1.0)
dassl.modeling.ops.utils.create_onehot(label, num_classes)
dassl.modeling.ops.utils.sharpen_prob(p, temperature=2)
dassl.modeling.ops.utils.ema_model_update(model, ema_model, alpha)
dassl.optim.build_optimizer(model, optim_cfg, param_groups=None)
dassl.optim.build_lr_scheduler(optimizer, optim_cfg)
dassl.optim.radam.RAdam(params, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0)
dassl.optim.lr_scheduler.ConstantWarmupScheduler(optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1, \
verbose=False)
dassl.optim.lr_scheduler.LinearWarmupScheduler(optimizer, successor, warmup_epoch, min_lr, last_epoch=-1, verbose=False)
dassl.utils.AverageMeter(ema=False)
dassl.utils.AverageMeter.update(self, val, n=1)
dassl.utils.MetricMeter(delimiter=' ')
dassl.utils.MetricMeter.update(self, input_dict)
dassl.utils.Registry(name)
dassl.utils.Registry.register(self, obj=None, force=False)
dassl.utils.Registry.get(self, name)
dassl.utils.Logger(fpath=None)
dassl.utils.setup_logger(output=None)
dassl.utils.check_isfile(fpath)
dassl.utils.check_availability(requested, available)
dassl.utils.count_num_param(model=None, params=None)
dassl.utils.download_url(url, dst)
dassl.utils.get_most_similar_str_to_a_from_b(a, b)
dassl.utils.init_network_weights(model, init_type='normal', gain=0.02)
dassl.utils.listdir_nohidden(path, sort=False)
dassl.utils.load_checkpoint(fpath)
dassl.utils.load_pretrained_weights(model, weight_path)
dassl.utils.mkdir_if_missing(dirname)
dassl.utils.open_all_layers(model)
dassl.utils.open_specified_layers(model, open_layers)
dassl.utils.read_image(path)
dassl.utils.read_json(fpath)
dassl.utils.write_json(obj, fpath)
dassl.utils.resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None)
dassl.utils.save_checkpoint(state, save_dir, is_best=False, remove_module_from_keys=True, model_name='')
dassl.utils.set_random_seed(seed)
dassl.utils.tolist_if_not(x)
"""
CALLS = [line.partition("(")[::2] for line in SIGNATURES.strip().splitlines()]


def words(text: str) -> list[str]:
    return text.split()


TRAINER = words("""
_models _optims _scheds _writer batch_idx best_result cfg device dm epoch evaluator lab2cname max_epoch model
num_batches num_classes num_source_domains optim output_dir sched start_epoch test_loader time_start train_loader_u
train_loader_x val_loader after_epoch after_train before_epoch before_train build_data_loader build_model check_cfg
close_writer detect_anomaly forward_backward get_current_lr get_model_names init_writer load_model model_backward
model_backward_and_update model_inference model_update model_zero_grad parse_batch_test parse_batch_train
register_model resume_model_if_exist run_epoch save_model set_model_mode test train update_lr write_scalar
""")
MANAGER = words("""
dataset lab2cname num_classes num_source_domains show_dataset_summary test_loader train_loader_u train_loader_x
val_loader
""")
DATASET = words("""
classnames check_input_domains dataset_dir domains download_data generate_fewshot_dataset get_lab2cname
get_num_classes is_input_domain_valid lab2cname num_classes split_dataset_by_domain split_dataset_by_label test
train_u train_x val
""")
KEYS = words("""
DATALOADER.K_TRANSFORMS DATALOADER.NUM_WORKERS DATALOADER.RETURN_IMG0 DATALOADER.TEST.BATCH_SIZE
DATALOADER.TEST.SAMPLER DATALOADER.TRAIN_U.BATCH_SIZE DATALOADER.TRAIN_U.N_DOMAIN DATALOADER.TRAIN_U.N_INS
DATALOADER.TRAIN_U.SAME_AS_X DATALOADER.TRAIN_U.SAMPLER DATALOADER.TRAIN_X.BATCH_SIZE DATALOADER.TRAIN_X.N_DOMAIN
DATALOADER.TRAIN_X.N_INS DATALOADER.TRAIN_X.SAMPLER DATASET.NAME DATASET.NUM_SHOTS DATASET.ROOT DATASET.SOURCE_DOMAINS
DATASET.TARGET_DOMAINS INPUT.INTERPOLATION INPUT.PIXEL_MEAN INPUT.PIXEL_STD INPUT.RRCROP_SCALE INPUT.SIZE
INPUT.TRANSFORMS MODEL.BACKBONE.NAME MODEL.HEAD.NAME MODEL.INIT_WEIGHTS OPTIM.ADAM_BETA1 OPTIM.ADAM_BETA2
OPTIM.BASE_LR_MULT OPTIM.LR OPTIM.LR_SCHEDULER OPTIM.MAX_EPOCH OPTIM.MOMENTUM OPTIM.NAME OPTIM.NEW_LAYERS
OPTIM.STAGED_LR OPTIM.WARMUP_CONS_LR OPTIM.WARMUP_EPOCH OPTIM.WARMUP_TYPE OPTIM.WEIGHT_DECAY OUTPUT_DIR RESUME SEED
TEST.FINAL_MODEL TEST.NO_TEST TEST.SPLIT TRAIN.CHECKPOINT_FREQ TRAIN.PRINT_FREQ TRAINER.NAME USE_CUDA VERBOSE
""")


def found(dotted: str):
    """The object of "package.module.Class.method"."""
    path, *names = dotted.split(".")
    thing = importlib.import_module(path)
    for name in names:
        path = f"{path}.{name}"
        thing = getattr(thing, name) if hasattr(thing, name) else importlib.import_module(path)
    return thing


FACES = {"dassl.engine.da": "dassl.compat.da", "dassl.engine.dg": "dassl.compat.dg",
         "dassl.engine.ssl": "dassl.compat.ssl", "dassl.modeling.ops": "dassl.compat.ops"}


@pytest.mark.parametrize(("old", "new"), FACES.items())
def test_an_old_name_gives_the_same_objects_as_the_new_one_in_every_module(old, new, forked):
    """Whichever is imported first; a second copy of a class would fail every isinstance."""
    names = [name for _, name, _ in pkgutil.iter_modules(importlib.import_module(new).__path__)]
    pairs = [(f"{old}{name}", f"{new}{name}") for name in ("", *(f".{name}" for name in names))]
    assert len(pairs) >= 2

    def same(order):
        for name in [name for name in sys.modules if name.partition(".")[0] == "dassl"]:
            del sys.modules[name]
        return [importlib.import_module(a) is importlib.import_module(b) for a, b in order]

    for order in (pairs, [pair[::-1] for pair in pairs]):
        assert all(forked(same, order)())


def test_the_lists_are_as_long_as_they_were_when_counted():
    assert len(NAMES) >= 150 and len(CALLS) >= 95 and len(KEYS) >= 50 and len(TRAINER) >= 50


def test_names_are_imported_from_where_public_code_imports_them():
    for module, name in NAMES:
        space = {}
        exec(f"from {module} import {name}", space)
        assert space[name] is not None, f"{module}.{name}"


def test_arguments_have_dassls_order_names_and_defaults():
    """What comes after Dassl's own is ours, and optional."""
    for dotted, parameters in CALLS:
        space = {}
        exec(f"def stub({parameters}: pass", space)
        theirs = list(inspect.signature(space["stub"]).parameters.values())
        ours = list(inspect.signature(found(dotted)).parameters.values())
        loose = [p for p in theirs if p.kind is p.VAR_KEYWORD]
        assert [(p.name, p.kind, p.default) for p in ours[:len(theirs) - len(loose)]] \
            == [(p.name, p.kind, p.default) for p in theirs if p not in loose], dotted
        assert all(any(p.kind is p.VAR_KEYWORD for p in ours) for _ in loose), dotted
        extra = ours[len(theirs) - len(loose):]
        assert all(p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in extra), dotted


def test_trainers_managers_datasets_and_batches_have_dassls_attributes(engine_cfg):
    trainer = build_trainer(engine_cfg(DATASET__ALL_AS_UNLABELED=True, OPTIM__MAX_EPOCH=1))
    trainer.train()
    for thing, names in ((trainer, TRAINER), (trainer.dm, MANAGER), (trainer.dm.dataset, DATASET)):
        assert not [name for name in names if not hasattr(thing, name)]
    assert issubclass(TrainerXU, SimpleTrainer) and issubclass(TrainerX, SimpleTrainer)
    batch = next(iter(trainer.train_loader_x))
    assert {"img", "label", "domain", "impath", "index"} <= batch.keys()
    assert [type(batch[key]) for key in ("img", "label", "domain", "index")] == [torch.Tensor] * 4
    assert list(trainer.dm.lab2cname.values()) == trainer.dm.dataset.classnames
    item = trainer.dm.dataset.train_x[0]
    assert vars(item).keys() == {"_impath", "_label", "_domain", "_classname"}


def test_the_keys_that_public_code_reads_and_sets_are_there():
    cfg = get_cfg_default()
    for key in KEYS:
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]


def test_other_peoples_extend_cfg_and_cleaning_work_on_the_default_config():
    from yacs.config import CfgNode as CN

    from dassl.config import clean_cfg

    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 16
    cfg.TEACHER = CN(dict(cfg.MODEL))
    cfg.merge_from_list(["TRAINER.COOP.N_CTX", "4", "OPTIM.WARMUP_CONS_LR", "1e-5", "INPUT.SIZE", "(32, 32)"])
    clean_cfg(cfg, "CoOp")
    assert cfg.TRAINER.COOP.N_CTX == 4 and cfg.INPUT.SIZE == (32, 32) and "DAEL" not in cfg.TRAINER
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5 and cfg.clone().is_frozen() is False


def test_dassls_yaml_merges_as_yacs_reads_it(tmp_path):
    file = tmp_path / "vit.yaml"
    file.write_text(textwrap.dedent("""
        DATALOADER:
          TRAIN_X:
            BATCH_SIZE: 4
          NUM_WORKERS: 8
          K_TRANSFORMS: 2
        INPUT:
          SIZE: (224, 224)
          INTERPOLATION: "bicubic"
          TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
        OPTIM:
          LR: 0.0026
          WARMUP_CONS_LR: 1e-5
        TRAINER:
          FIXMATCH:
            STRONG_TRANSFORMS: ("randaugment_fixmatch", "normalize")
        """))
    cfg = get_cfg_default()
    cfg.merge_from_file(str(file))
    assert cfg.DATALOADER.K_TRANSFORMS == 2 and cfg.INPUT.TRANSFORMS[1] == "random_flip"
    assert cfg.TRAINER.FIXMATCH.STRONG_TRANSFORMS == ("randaugment_fixmatch", "normalize")

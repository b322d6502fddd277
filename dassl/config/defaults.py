"""The engine's config keys: Dassl 0.6.3's names and values. A method's keys stand in its trainer's `extend_cfg`."""
from yacs.config import CfgNode as CN

from dassl.compat.legacy_trainers import add_legacy_trainers


def get_cfg_default() -> CN:
    """A fresh config with every key of the engine."""
    cfg = CN()
    cfg.VERSION = 1
    cfg.OUTPUT_DIR = "./output"             # run folder: checkpoints, log.txt, results.json
    cfg.RESUME = ""                         # run folder to continue from
    cfg.SEED = -1                           # seeds everything when >= 0; 0 is a seed
    cfg.USE_CUDA = True                     # the first GPU, where there is one
    cfg.VERBOSE = True                      # log details of data and schedule

    c = cfg.INPUT = CN()
    c.SIZE = (224, 224)                     # height, width in pixels
    c.INTERPOLATION = "bilinear"            # of resizing: nearest, bilinear or bicubic
    c.TRANSFORMS = ()                       # names, see dassl/data/transforms; "normalize" decides whether pixels are
    c.NO_TRANSFORM = False                  # leave images as PIL reads them, for trainers that ask for it
    c.PIXEL_MEAN = [0.485, 0.456, 0.406]    # per channel, of pixels in [0, 1]
    c.PIXEL_STD = [0.229, 0.224, 0.225]
    c.CROP_PADDING = 4                      # pixels around the image before random_crop
    c.RRCROP_SCALE = (0.08, 1.0)            # share of the image that random_resized_crop keeps
    c.CUTOUT_N = 1                          # holes
    c.CUTOUT_LEN = 16                       # side of a hole, pixels
    c.GN_MEAN = 0.0                         # gaussian_noise
    c.GN_STD = 0.15
    c.RANDAUGMENT_N = 2                     # operations per image
    c.RANDAUGMENT_M = 10                    # their strength, 0 to 30
    c.TIMM_RANDAUGMENT = "rand-m9-mstd0.5-inc1"     # of timm_randaugment, in timm's words
    c.ERASING_P = 0.25                      # probability of random_erasing
    c.COLORJITTER_B = 0.4                   # brightness
    c.COLORJITTER_C = 0.4                   # contrast
    c.COLORJITTER_S = 0.4                   # saturation
    c.COLORJITTER_H = 0.1                   # hue
    c.RGS_P = 0.2                           # probability of random_grayscale
    c.GB_P = 0.5                            # probability of gaussian_blur
    c.GB_K = 21                             # its kernel, pixels (odd)

    c = cfg.DATASET = CN()
    c.ROOT = ""                             # folder that holds all datasets
    c.NAME = ""                             # registered name, e.g. OxfordPets
    c.SOURCE_DOMAINS = ()                   # of domain generalisation and adaptation
    c.TARGET_DOMAINS = ()
    c.NUM_LABELED = -1                      # labelled images in all, for semi-supervised sets
    c.NUM_SHOTS = -1                        # training images per class; below 1 all of them
    c.TRAIN_ON_VAL = False                  # also on the validation images, once settings have been chosen on them
    c.VAL_PERCENT = 0.1                     # of the training set, where a dataset splits by percentage
    c.STL10_FOLD = -1
    c.CIFAR_C_TYPE = ""
    c.CIFAR_C_LEVEL = 1
    c.ALL_AS_UNLABELED = False              # labelled images also serve as unlabelled ones

    c = cfg.DATALOADER = CN()
    c.NUM_WORKERS = 4                       # make batches ahead: processes, or threads for cached images; 0 none
    c.CACHE_MB = 4096                       # memory for decoded training images, if all fit; 0 decodes at each use
    c.K_TRANSFORMS = 1                      # augmented copies per training image
    c.RETURN_IMG0 = False                   # also return the image without augmentation
    c.TRAIN_X = CN()
    c.TRAIN_X.SAMPLER = "RandomSampler"
    c.TRAIN_X.BATCH_SIZE = 32
    c.TRAIN_X.DROP_LAST = True              # leave a last short batch out, unless it is the only one
    c.TRAIN_X.N_DOMAIN = 0                  # domains per batch, for RandomDomainSampler; 0 is all
    c.TRAIN_X.N_INS = 16                    # images per class in a batch, for RandomClassSampler
    c.TRAIN_U = CN()
    c.TRAIN_U.SAME_AS_X = True              # take sampler, batch size and the rest from TRAIN_X
    c.TRAIN_U.SAMPLER = "RandomSampler"
    c.TRAIN_U.BATCH_SIZE = 32
    c.TRAIN_U.N_DOMAIN = 0
    c.TRAIN_U.N_INS = 16
    c.TEST = CN()
    c.TEST.SAMPLER = "SequentialSampler"
    c.TEST.BATCH_SIZE = 32

    c = cfg.MODEL = CN()
    c.INIT_WEIGHTS = ""                     # weights to start from; what does not fit is left aside
    c.BACKBONE = CN()
    c.BACKBONE.NAME = ""
    c.BACKBONE.PRETRAINED = True
    c.HEAD = CN()
    c.HEAD.NAME = ""
    c.HEAD.HIDDEN_LAYERS = ()
    c.HEAD.ACTIVATION = "relu"
    c.HEAD.BN = True
    c.HEAD.DROPOUT = 0.0

    c = cfg.OPTIM = CN()
    c.NAME = "adam"                         # adam, amsgrad, sgd, rmsprop, radam or adamw
    c.LR = 0.0003
    c.WEIGHT_DECAY = 5e-4
    c.MOMENTUM = 0.9
    c.SGD_DAMPNING = 0
    c.SGD_NESTEROV = False
    c.RMSPROP_ALPHA = 0.99
    c.ADAM_BETA1 = 0.9
    c.ADAM_BETA2 = 0.999
    c.ADAM_EPS = 1e-8
    c.STAGED_LR = False                     # layers outside NEW_LAYERS learn at LR * BASE_LR_MULT
    c.NEW_LAYERS = ()
    c.BASE_LR_MULT = 0.1
    c.LR_SCHEDULER = "single_step"          # single_step, multi_step or cosine; per epoch
    c.STEPSIZE = (-1,)                      # epochs; -1 is MAX_EPOCH
    c.GAMMA = 0.1                           # factor at each step
    c.MIN_LR = 0.0                          # where cosine ends
    c.MAX_EPOCH = 10
    c.WARMUP_EPOCH = -1                     # epochs before the schedule proper; <= 0 is none
    c.WARMUP_TYPE = "linear"                # linear or constant
    c.WARMUP_CONS_LR = 1e-5
    c.WARMUP_MIN_LR = 1e-5
    c.WARMUP_STEPS = 0                      # in place of these: steps of a rate that rises evenly to LR; for a cosine
                                            # schedule per iteration, which then covers the steps that are left
    c.WARMUP_RECOUNT = True                 # the schedule counts its epochs from the end of the warm-up

    c = cfg.TRAIN = CN()
    c.CHECKPOINT_FREQ = 0                   # epochs between checkpoints; 0 saves the last only
    c.PRINT_FREQ = 10                       # batches between lines in log.txt
    c.TRACKERS = ""                         # "wandb", "mlflow" or "wandb,mlflow", in addition to TensorBoard's files
    c.STREAMS = "images"                    # "images": each has a seed of its own; "dassl": draws as Dassl 0.6.3 does
    c.COUNT_ITER = "train_x"                # loader that an epoch runs through: train_x, train_u or smaller_one

    c = cfg.TEST = CN()
    c.EVALUATOR = "Classification"
    c.PER_CLASS_RESULT = False
    c.COMPUTE_CMAT = False                  # save the confusion matrix as cmat.pt
    c.SAVE_LOGITS = False                   # save logits, features, labels and paths as logits.npz
    c.NO_TEST = False                       # skip the test after training
    c.SPLIT = "test"                        # "test" or "val"
    c.FINAL_MODEL = "last_step"             # "last_step", or "best_val": chosen on the validation split

    cfg.TRAINER = CN()
    cfg.TRAINER.NAME = ""
    add_legacy_trainers(cfg)
    return cfg


def complete(cfg: CN, default: CN, none_is_lacking: bool = False) -> None:
    """Add what `cfg` lacks of `default`, in place, also to a frozen one: others make configs with Dassl's keys alone.

    Args:
        none_is_lacking: so it is in DATASET, where some set NUM_SHOTS to None because their datasets read none.
    """
    for key, value in default.items():
        if key not in cfg or none_is_lacking and cfg[key] is None:
            cfg[key] = value
        elif isinstance(value, CN) and isinstance(cfg[key], CN):
            complete(cfg[key], value, none_is_lacking or key == "DATASET")

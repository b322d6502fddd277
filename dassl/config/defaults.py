"""Engine keys and their defaults, those of Dassl 0.6.3."""
from __future__ import annotations

from .cfgnode import CfgNode as Node


def defaults() -> Node:
    cfg = Node()
    cfg.VERSION = 1
    cfg.OUTPUT_DIR = "./output"                     # log.txt, checkpoints and results.json of the run
    cfg.RESUME = ""                                 # folder of an earlier run to continue; "" continues OUTPUT_DIR
    cfg.SEED = -1                                   # 0 and above fix all random streams; negative draws afresh
    cfg.USE_CUDA = True                             # use a GPU where there is one
    cfg.VERBOSE = True                              # log the dataset table and what is built
    cfg.INPUT = _input()
    cfg.DATASET = _dataset()
    cfg.DATALOADER = _dataloader()
    cfg.MODEL = _model()
    cfg.OPTIM = _optim()
    cfg.TRAIN = _train()
    cfg.TEST = _test()
    cfg.TRAINER = Node()
    cfg.TRAINER.NAME = ""                           # registered name
    return cfg


def _input() -> Node:
    c = Node()
    c.SIZE = (224, 224)                             # height and width in pixels
    c.INTERPOLATION = "bilinear"                    # bilinear, bicubic or nearest
    c.TRANSFORMS = ()                               # names, see data/transforms
    c.NO_TRANSFORM = False                          # True gives PIL images as they are
    c.PIXEL_MEAN = [0.485, 0.456, 0.406]            # of "normalize"; ImageNet's
    c.PIXEL_STD = [0.229, 0.224, 0.225]
    c.CROP_PADDING = 4                              # pixels around the image before "random_crop"
    c.RRCROP_SCALE = (0.08, 1.0)                    # share of the area that "random_resized_crop" keeps
    c.CUTOUT_N = 1                                  # holes per image
    c.CUTOUT_LEN = 16                               # side of a hole in pixels
    c.GN_MEAN = 0.0                                 # "gaussian_noise"
    c.GN_STD = 0.15
    c.RANDAUGMENT_N = 2                             # operations per image
    c.RANDAUGMENT_M = 10                            # strength, 0 to 30
    c.COLORJITTER_B = 0.4                           # brightness
    c.COLORJITTER_C = 0.4                           # contrast
    c.COLORJITTER_S = 0.4                           # saturation
    c.COLORJITTER_H = 0.1                           # hue
    c.RGS_P = 0.2                                   # probability of "randomgrayscale"
    c.GB_P = 0.5                                    # probability of "gaussian_blur"
    c.GB_K = 21                                     # its kernel, an odd number of pixels
    return c


def _dataset() -> Node:
    c = Node()
    c.ROOT = ""                                     # folder that holds the dataset folders
    c.NAME = ""                                     # registered name
    c.SOURCE_DOMAINS = ()                           # names of domains to train on, for datasets that have domains
    c.TARGET_DOMAINS = ()                           # names of domains to test on
    c.NUM_LABELED = -1                              # labelled images in total, for semi-supervised learning
    c.NUM_SHOTS = -1                                # training images per class; below 1 takes all
    c.VAL_PERCENT = 0.1                             # share of the training images kept for validation (semi-supervised)
    c.STL10_FOLD = -1                               # 0 to 9; negative takes all folds
    c.CIFAR_C_TYPE = ""                             # corruption of CIFAR-10-C and CIFAR-100-C
    c.CIFAR_C_LEVEL = 1                             # 1 to 5
    c.ALL_AS_UNLABELED = False                      # labelled images are used without label, too
    return c


def _dataloader() -> Node:
    c = Node()
    c.NUM_WORKERS = 4                               # processes that load images; results do not depend on it
    c.K_TRANSFORMS = 1                              # augmented views per training image
    c.RETURN_IMG0 = False                           # adds the image without augmentation as "img0"
    c.TRAIN_X = Node()
    c.TRAIN_X.SAMPLER = "RandomSampler"
    c.TRAIN_X.BATCH_SIZE = 32
    c.TRAIN_X.N_DOMAIN = 0                          # domains per batch of the domain samplers; 0 takes all
    c.TRAIN_X.N_INS = 16                            # images per class in a batch of RandomClassSampler
    c.TRAIN_U = Node()
    c.TRAIN_U.SAME_AS_X = True                      # the unlabelled loader is set up as TRAIN_X
    c.TRAIN_U.SAMPLER = "RandomSampler"
    c.TRAIN_U.BATCH_SIZE = 32
    c.TRAIN_U.N_DOMAIN = 0
    c.TRAIN_U.N_INS = 16
    c.TEST = Node()
    c.TEST.SAMPLER = "SequentialSampler"
    c.TEST.BATCH_SIZE = 32
    return c


def _model() -> Node:
    c = Node()
    c.INIT_WEIGHTS = ""                             # file with weights to start from
    c.BACKBONE = Node()
    c.BACKBONE.NAME = ""
    c.BACKBONE.PRETRAINED = True
    c.HEAD = Node()
    c.HEAD.NAME = ""                                # "" puts the classifier directly on the backbone
    c.HEAD.HIDDEN_LAYERS = ()                       # widths
    c.HEAD.ACTIVATION = "relu"
    c.HEAD.BN = True
    c.HEAD.DROPOUT = 0.0
    return c


def _optim() -> Node:
    c = Node()
    c.NAME = "adam"                                 # adam, amsgrad, sgd, rmsprop, radam or adamw
    c.LR = 0.0003
    c.WEIGHT_DECAY = 5e-4
    c.MOMENTUM = 0.9                                # sgd and rmsprop
    c.SGD_DAMPNING = 0
    c.SGD_NESTEROV = False
    c.RMSPROP_ALPHA = 0.99
    c.ADAM_BETA1 = 0.9                              # also radam and adamw
    c.ADAM_BETA2 = 0.999
    c.STAGED_LR = False                             # True trains all but NEW_LAYERS with LR * BASE_LR_MULT
    c.NEW_LAYERS = ()                               # names of child modules
    c.BASE_LR_MULT = 0.1
    c.LR_SCHEDULER = "single_step"                  # single_step, multi_step or cosine; one step per epoch
    c.STEPSIZE = (-1,)                              # epochs; below 1 is MAX_EPOCH (single_step)
    c.GAMMA = 0.1                                   # factor at a step
    c.MAX_EPOCH = 10
    c.WARMUP_EPOCH = -1                             # epochs of warm-up; below 1 is none
    c.WARMUP_TYPE = "linear"                        # linear or constant
    c.WARMUP_CONS_LR = 1e-5                         # rate during a constant warm-up
    c.WARMUP_MIN_LR = 1e-5                          # rate of the first epoch of a linear warm-up
    c.WARMUP_RECOUNT = True                         # the schedule begins after the warm-up, not with it
    return c


def _train() -> Node:
    c = Node()
    c.CHECKPOINT_FREQ = 0                           # epochs between checkpoints; below 1 keeps the last only
    c.PRINT_FREQ = 10                               # batches between lines in log.txt
    c.COUNT_ITER = "train_x"                        # whose length is an epoch: train_x, train_u or smaller_one
    return c


def _test() -> Node:
    c = Node()
    c.EVALUATOR = "Classification"
    c.PER_CLASS_RESULT = False                      # accuracy of each class in log.txt
    c.COMPUTE_CMAT = False                          # confusion matrix in OUTPUT_DIR/cmat.pt
    c.NO_TEST = False                               # True trains and stops
    c.SPLIT = "test"                                # split of the final evaluation: test or val
    c.FINAL_MODEL = "last_step"                     # or best_val: the epoch that is best on the val split
    return c

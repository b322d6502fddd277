"""One file per method; what they share is in `parts/`. Importing a file registers its trainer."""

MAX_TOKENS = 16384


def extend_cfg(cfg) -> None:
    if "CHECKPOINT_SECONDS" not in cfg.TRAIN:
        cfg.TRAIN.CHECKPOINT_SECONDS = 60.0 # between savings of a run's state, in resume.pth.tar of its folder, from
                                            # which an interrupted run resumes; 0: only when it is asked to end
    if "MAX_TOKENS" not in cfg.TRAIN:
        cfg.TRAIN.MAX_TOKENS = MAX_TOKENS   # text tokens encoded at once; more go in pieces, which are computed again
                                            # for the gradient: less memory, more time, the same result; 0: no limit
    if "TASKS" not in cfg.TRAIN:
        cfg.TRAIN.TASKS = 1                 # groups of classes that are learned one after the other, each for
                                            # OPTIM.MAX_EPOCH epochs on its own images; 1: all classes at once
    if "ON_NAN" not in cfg.TRAIN:
        cfg.TRAIN.ON_NAN = "stop"           # at a step that is not finite: stop; skip leaves it out, and stops after
                                            # more than ten in a row
    if "COMPILE" not in cfg.TRAIN:
        cfg.TRAIN.COMPILE = False           # torch.compile for the image tower's blocks: half a minute at first, then
                                            # some per cent faster on a CPU, where it needs a C++ compiler
    if "CYCLIP_IN_MODAL" not in cfg.TRAIN:
        cfg.TRAIN.CYCLIP_IN_MODAL = 0.0     # weight of CyCLIP's in-modal loss, added to any method's own: larger keeps
                                            # images as far from each other as the texts of their classes; 0 is without
        cfg.TRAIN.CYCLIP_CROSS_MODAL = 0.0  # of its cross-modal loss: larger makes image i as near to text j as image j
                                            # to text i; CyCLIP takes 0.25 for both
    if "ONEDNN" not in cfg.TRAIN:
        cfg.TRAIN.ONEDNN = "auto"           # library of float32 products on a CPU: auto takes oneDNN for a large model
                                            # where the processor has AVX-512 and is not Intel's, else F.linear; on, off
    if "SEEN_CLASSES" not in cfg.TEST:
        cfg.TEST.SEEN_CLASSES = "auto"      # classes that training saw, where a method answers new ones otherwise: auto
                                            # asks the run that is tested; all or none where it does not say
    if "ATTACK" not in cfg.TEST:
        cfg.TEST.ATTACK = ""                # under which a finished model is tested, e.g. "pgd:1/255:10": the kind, the
                                            # largest change of a pixel, and steps; see tools/evaluate.py --help
    if "RESET" not in cfg.TEST:
        cfg.TEST.RESET = False              # what is learned from test images is forgotten at each new domain of them
    if "FEATURES_MB" not in cfg.TRAIN:
        cfg.TRAIN.FEATURES_MB = 2048        # disk for each dataset's frozen image features; what has no room is
                                            # computed again when it is needed
        cfg.TRAIN.FEATURES_FP16 = False     # keep them in half precision: half the space, three digits

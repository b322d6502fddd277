"""Datasets of the papers and the embedded ones: rows on cards, read into Dassl's splits."""


def extend_cfg(cfg) -> None:
    """Add what CoOp's benchmarks ask of every dataset."""
    if "SUBSAMPLE_CLASSES" not in cfg.DATASET:
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"     # "all", or the "base" or "new" half of the classes
    if "CORRUPTIONS" not in cfg.DATASET:
        cfg.DATASET.CORRUPTIONS = ()              # of validation and test images, e.g. ("fog:3", "snow:5"): one domain
                                                  # after the other, each with all of the images; () leaves them alone
    if "SELECT_ON" not in cfg.DATASET:
        cfg.DATASET.SELECT_ON = "training"        # of several domains, those whose 20 % are validation images:
                                                  # "training" ones, or the "target" left out (DomainBed's oracle)
    if "TASKS" not in cfg.DATASET:
        cfg.DATASET.TASKS = ()                    # registered names of datasets that are learned together, for Tasks
        cfg.DATASET.SAME_NAMES = "refuse"         # a class name in several tasks: "refuse", or "keep" both classes
    if "TASK" not in cfg.DATASET:
        cfg.DATASET.TASK = "shape"                # of images with several labels, the one that is asked for

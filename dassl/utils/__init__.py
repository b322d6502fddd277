"""Names as in Dassl 0.6.3, plus UserError and cache_dir."""
from .errors import UserError
from .layers import init_network_weights
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry, UnknownName, nearest
from .tools import (
    cache_dir,
    check_availability,
    check_isfile,
    collect_env_info,
    count_num_param,
    download_url,
    get_most_similar_str_to_a_from_b,
    is_hidden,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    set_random_seed,
    tolist_if_not,
    write_json,
)
from .torchtools import (
    load_checkpoint,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
)

__all__ = [
    "AverageMeter", "Logger", "MetricMeter", "Registry", "UnknownName", "UserError", "cache_dir",
    "check_availability", "check_isfile", "collect_env_info", "count_num_param", "download_url",
    "get_most_similar_str_to_a_from_b", "init_network_weights", "is_hidden", "listdir_nohidden", "load_checkpoint",
    "load_pretrained_weights", "mkdir_if_missing", "nearest", "open_all_layers", "open_specified_layers",
    "read_image", "read_json", "resume_from_checkpoint", "save_checkpoint", "set_random_seed", "setup_logger",
    "tolist_if_not", "write_json",
]

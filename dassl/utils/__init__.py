"""Upstream's utilities by their names, and ours: UserError, cache_dir, atomic_write, say, RNG states."""
from .environment import collect_env_info, git_commit, versions
from .errors import UnknownName, UserError, WrongValue, nearest, suggestion
from .logger import LogSession, say, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry, RegistryClash
from .seeding import local_seed, rng_state, set_random_seed, set_rng_state
from .tools import *  # noqa: F403

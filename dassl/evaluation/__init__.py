from .build import EVALUATOR_REGISTRY, build_evaluator
from .elevater import ElevaterMetric
from .evaluator import Classification, EvaluatorBase

"""The 23 registry nodes of evamm, one for each root registry of mmengine.

Every node has the scope `evamm`: a config writes `type='evamm.EVAViT'` and mmengine imports this
file, then the node's `locations`, so a config never needs `custom_imports`.
"""

from evamm import compat

compat.install()
compat.require('torch', 'mmengine')

from mmengine.registry import Registry, root


def _node(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='evamm', locations=list(locations))


# Running and training
RUNNERS = _node(root.RUNNERS, 'evamm.engine')
RUNNER_CONSTRUCTORS = _node(root.RUNNER_CONSTRUCTORS, 'evamm.engine')
LOOPS = _node(root.LOOPS, 'evamm.engine')
HOOKS = _node(root.HOOKS, 'evamm.engine')
STRATEGIES = _node(root.STRATEGIES, 'evamm.engine')
LOG_PROCESSORS = _node(root.LOG_PROCESSORS, 'evamm.engine')
OPTIMIZERS = _node(root.OPTIMIZERS, 'evamm.engine')
OPTIM_WRAPPERS = _node(root.OPTIM_WRAPPERS, 'evamm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _node(root.OPTIM_WRAPPER_CONSTRUCTORS, 'evamm.engine')
PARAM_SCHEDULERS = _node(root.PARAM_SCHEDULERS, 'evamm.engine')

# Data
DATASETS = _node(root.DATASETS, 'evamm.datasets')
DATA_SAMPLERS = _node(root.DATA_SAMPLERS, 'evamm.datasets')
TRANSFORMS = _node(root.TRANSFORMS, 'evamm.datasets')

# Models
MODELS = _node(root.MODELS, 'evamm.models')
MODEL_WRAPPERS = _node(root.MODEL_WRAPPERS, 'evamm.engine')
WEIGHT_INITIALIZERS = _node(root.WEIGHT_INITIALIZERS, 'evamm.models')
TASK_UTILS = _node(root.TASK_UTILS, 'evamm.models')
FUNCTIONS = _node(root.FUNCTIONS, 'evamm.models')

# Evaluation, visualisation, inference
METRICS = _node(root.METRICS, 'evamm.evaluation')
EVALUATOR = _node(root.EVALUATOR, 'evamm.evaluation')
VISUALIZERS = _node(root.VISUALIZERS, 'evamm.visualization')
VISBACKENDS = _node(root.VISBACKENDS, 'evamm.visualization')
INFERENCERS = _node(root.INFERENCERS, 'evamm.apis')

"""The 23 registry nodes of evamm, one for each root registry of mmengine.

Every node has the scope `evamm`: a config writes `type='evamm.EVAViT'` and mmengine imports this
file, then the node's `locations`, so a config never needs `custom_imports`. What needs mmdet is
imported only when a name is found nowhere else.
"""

from importlib import import_module

from evamm import compat

compat.install()
compat.require('torch', 'mmengine')

from mmengine.registry import Registry, root


class _Node(Registry):
    """A registry with further locations for the names that the ordinary ones do not have.

    Args:
        optional: Modules that need a library which not everyone has (mmdet).
    """

    def __init__(self, *args: object, optional: tuple[str, ...] = (), **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._optional = optional

    def get(self, key: str) -> type | None:
        """The class or function of a name, with or without scope; None if there is none.

        Raises:
            ImportError: If the name is in none of the ordinary locations and mmdet, which the
                others need, is missing; the message says what to install.
        """
        found = super().get(key)
        if found is None and self._optional and key.split('.')[0] in (key, self.scope):
            try:
                compat.require('mmdet')
            except ImportError as error:
                raise ImportError(
                    f'{key!r} is no {self.name} of evamm that works without mmdet. If it belongs '
                    f'to detection, install the extra: pip install "evamm[onedl]" ({error}).',
                    name=error.name,
                ) from error
            for location in self._optional:
                import_module(location)
            found = super().get(key)
        return found


def _node(parent: Registry, *locations: str, optional: tuple[str, ...] = ()) -> Registry:
    return _Node(
        parent.name, parent=parent, scope='evamm', locations=list(locations), optional=optional
    )


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
DATASETS = _node(root.DATASETS, 'evamm.datasets', optional=('evamm.datasets.detection',))
DATA_SAMPLERS = _node(root.DATA_SAMPLERS, 'evamm.datasets', optional=('evamm.datasets.detection',))
TRANSFORMS = _node(root.TRANSFORMS, 'evamm.datasets', optional=('evamm.datasets.detection',))

# Models
MODELS = _node(root.MODELS, 'evamm.models', optional=('evamm.models.detection',))
MODEL_WRAPPERS = _node(root.MODEL_WRAPPERS, 'evamm.engine')
WEIGHT_INITIALIZERS = _node(root.WEIGHT_INITIALIZERS, 'evamm.models')
TASK_UTILS = _node(root.TASK_UTILS, 'evamm.models', optional=('evamm.models.detection',))
FUNCTIONS = _node(root.FUNCTIONS, 'evamm.models')

# Evaluation, visualisation, inference
METRICS = _node(root.METRICS, 'evamm.evaluation', optional=('evamm.evaluation.detection',))
EVALUATOR = _node(root.EVALUATOR, 'evamm.evaluation')
VISUALIZERS = _node(root.VISUALIZERS, 'evamm.visualization')
VISBACKENDS = _node(root.VISBACKENDS, 'evamm.visualization')
INFERENCERS = _node(root.INFERENCERS, 'evamm.apis')
